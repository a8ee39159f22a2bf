from functools import partial

import pytest
from drafts import SEQUENCE, call_of, draft_of, rules
from keras import layers

from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.targets.steps.attention import place_inner_matmuls
from tensorflow_quantization.targets.steps.kernels import place_kernels

RULES = rules(matmuls=Trait.ATTENDS)


def test_attention_with_projections_has_weights_and_matmuls_quantized():
    draft = draft_of(lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, x), RULES, SEQUENCE)
    place_inner_matmuls(draft, call_of(draft, "attention"))
    placement = draft.placements["attention"]
    assert placement.inner_matmuls
    assert placement.weights


def test_attention_without_projections_has_no_weights():
    draft = draft_of(lambda x: layers.Attention(name="attention")([x, x]), RULES, SEQUENCE)
    place_inner_matmuls(draft, call_of(draft, "attention"))
    assert draft.placements["attention"].inner_matmuls
    assert not draft.placements["attention"].weights


@pytest.mark.parametrize(
    "layer", [partial(layers.Attention, score_mode="concat"), layers.AdditiveAttention], ids=["concat", "additive"]
)
def test_attention_that_adds_multiplies_its_values_alone(layer):
    def attend(x):
        query, value, key = (layers.ReLU(name=name)(x) for name in ("query", "value", "key"))
        return layer(name="attention")([query, value, key])

    draft = draft_of(attend, RULES, SEQUENCE)
    place_kernels(draft)
    assert draft.placements["attention"].inner_matmuls
    assert draft.placements["value"].output
    assert draft.placements.keys() == {"attention", "value"}
