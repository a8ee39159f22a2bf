"""Which tensors hold the huge numbers of a mask."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.mask_numbers import mask_numbers

SEEN = np.tri(4, dtype="float32")


def held(function, inputs=1):
    """The classes of the calls of a function of tensors whose output holds the numbers of a mask."""
    tensors = [keras.Input((4, 4), name=f"x{i}") for i in range(inputs)]
    graph = LayerGraph.trace(keras.Model(tensors, function(*tensors))).flatten()
    numbers = mask_numbers(graph)
    return [call.class_name for call in graph.calls if id(call.outputs[0]) in numbers]


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda x: ops.where(SEEN > 0, x, -1e9), ["Where"]),
        (lambda x: ops.where(SEEN > 0, x, -10000), ["Where"]),
        (lambda x: ops.where(SEEN > 0, x, -np.inf), ["Where"]),
        (lambda x: ops.where(SEEN > 0, x, ops.full_like(x, -1e9)), ["FullLike", "Where"]),
        (lambda x: x + (1 - SEEN) * -1e9, ["Add"]),
        (lambda x: x - np.float32(1e30) * (1 - SEEN), ["Subtract"]),
        (lambda x: ops.transpose(ops.where(SEEN > 0, x, -1e9)) * 0.5, ["Where", "Transpose", "Multiply"]),
        (lambda x: ops.concatenate([ops.where(SEEN > 0, x, -1e9), x], -1), ["Where", "Concatenate"]),
        (lambda x: layers.Add()([x, ops.where(SEEN > 0, x, -1e9)]), ["Where", "Add"]),
    ],
)
def test_masked_scores_hold_huge_numbers_until_a_softmax_reads_them(function, expected):
    assert held(lambda x: ops.softmax(function(x)) + 1) == expected


def test_mask_that_is_an_input_holds_them_after_it_is_multiplied():
    masked = held(lambda x, mask: ops.softmax(x + (1 - mask) * -1e9), 2)
    assert masked == ["Multiply", "Add"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.where(SEEN > 0, x, -30.0),
        lambda x: ops.maximum(x, -1e9),
        lambda x: ops.clip(x, -1e9, 1e9),
        lambda x: x / 1e9,
        lambda x: layers.Rescaling(1e5)(x),
        lambda x: layers.Dense(4)(x) * 1e5,  # a factor that becomes part of the weights
    ],
)
def test_limits_and_factors_are_no_mask(function):
    assert held(lambda x: ops.softmax(function(x))) == []


@pytest.mark.parametrize("function", [lambda x: (x - 101325) / 5000, lambda x: x * 32768.0 / 32768.0])
def test_numbers_that_no_softmax_reads_are_no_mask(function):
    assert held(lambda x: layers.Dense(4)(function(x))) == []
