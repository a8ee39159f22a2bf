"""Layers and operations of all kinds between others: each model is right in its target's own runtime, or refused.

`OPERATIONS=10000` draws as many models instead of the same few each time, and prints the seed that repeats them:
`OPERATIONS_SEED`.
"""

import collections

import numpy as np
import pytest
from drawn_models import QUANTIZED, TARGETS, many, outcome
from hypothesis import given, reject
from hypothesis import strategies as st
from keras import ops, tree
from operations import between, chains, data_for

#: LiteRT rounds within the activations that it has no operator for, by more than a step.
ONNX_TARGETS = [target for target in TARGETS if target != "litert"]
PRODUCTS_OF_ACTIVATIONS = {"Attention", "Dot", "GroupQueryAttention", "MultiHeadAttention", "ops.einsum", "ops.matmul"}


@pytest.mark.slow
def test_a_chain_of_operations_is_right_in_its_runtime_or_refused(tmp_path_factory):
    outcomes = collections.Counter()

    @many("OPERATIONS", 60)
    @given(case=chains(), target=st.sampled_from(ONNX_TARGETS), quantized=QUANTIZED)
    def draw(case, target, quantized):
        try:
            model = between(**case)
            data = data_for(model, 4)
            # Not by `predict`: with oneDNN, TensorFlow's compiled graphs end the process for some of these models.
            outputs = tree.flatten(model(data))
        except Exception:
            reject()  # Keras itself cannot build or run it
        if not all(np.isfinite(ops.convert_to_numpy(output)).all() for output in outputs):
            reject()
        folder = tmp_path_factory.mktemp("case")
        products = not PRODUCTS_OF_ACTIVATIONS.isdisjoint(case["names"])
        found = outcome(lambda: between(**case), data, target, quantized, folder, products_of_activations=products)
        outcomes[found] += 1

    draw()
    print(dict(outcomes))
    assert outcomes["right"] > outcomes.total() / 2  # refusing all models is no way to be right
