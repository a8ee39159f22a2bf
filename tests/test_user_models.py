"""Models as users have them: each is right in its target's own runtime, or refused by an error of ours.

`USER_MODELS=10000` draws as many models instead of the same few each time, and prints the seed that repeats them:
`USER_MODELS_SEED`.
"""

import collections
import functools

import pytest
from drawn_models import QUANTIZED, TARGETS, many, outcome
from hypothesis import given
from hypothesis import strategies as st
from user_models import build, data_for, user_models


@pytest.mark.slow
def test_a_model_is_right_in_its_runtime_or_refused(tmp_path_factory):
    outcomes = collections.Counter()

    @many("USER_MODELS", 60)
    @given(case=user_models(), target=st.sampled_from(TARGETS), quantized=QUANTIZED)
    def draw(case, target, quantized):
        attends = "attention" in [name for name, _, _ in case["steps"]]
        folder = tmp_path_factory.mktemp("case")
        made = functools.partial(build, **case)
        data = data_for(case["kind"], 4)
        found = outcome(made, data, target, quantized, folder, products_of_activations=attends, in_use=True)
        outcomes[found] += 1

    draw()
    print(dict(outcomes))
    assert outcomes["right"] > outcomes.total() / 2  # refusing all models is no way to be right
