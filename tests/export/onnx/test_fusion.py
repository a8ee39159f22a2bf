"""What `model.fusion` says of a model, and what is left of it in the file."""

import golden
import keras
import onnx
import pytest
import small_models
from keras import layers

from tensorflow_quantization import describe, export_onnx, quantize_model
from tensorflow_quantization.legacy.custom_qdq_cases import BNQDQCase
from tensorflow_quantization.model.fusion import folded_into
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.op_traits import Trait, traits

#: A product, and the shape of its input.
PRODUCTS = {
    "conv1d": (lambda: layers.Conv1D(4, 3), (8, 3)),
    "conv2d": (lambda: layers.Conv2D(4, 3, use_bias=False), (8, 8, 3)),
    "conv2d_transpose": (lambda: layers.Conv2DTranspose(4, 3), (8, 8, 3)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (8, 8, 3)),
    "separable": (lambda: layers.SeparableConv2D(4, 3), (8, 8, 3)),
    "channels_first": (lambda: layers.Conv2D(4, 3, data_format="channels_first"), (3, 8, 8)),
    "activated": (lambda: layers.Conv2D(4, 3, activation="relu"), (8, 8, 3)),
    "dense": (lambda: layers.Dense(4), (5,)),
    "dense_of_sequence": (lambda: layers.Dense(4, use_bias=False), (6, 5)),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (6, 4), bias_axes="d"), (6, 5)),
    "einsum_of_two_axes": (lambda: layers.EinsumDense("abc,cde->abde", (6, 3, 4)), (6, 5)),
    "einsum_that_moves": (lambda: layers.EinsumDense("abc,bd->adc", (4, 5)), (6, 5)),
    "attention": (lambda: lambda x: layers.MultiHeadAttention(2, 4)(x, x), (6, 8)),
}
#: What stands between a product and its normalization.
BETWEEN = {
    "nothing": lambda: lambda x: x,
    "dropout": lambda: layers.Dropout(0.1),
    "relu": layers.ReLU,
    "reshape": lambda: lambda x: layers.Reshape((-1, x.shape[-1]))(x),
    "normalization": layers.BatchNormalization,
}


def normalized(product, between="nothing", axis=-1):
    make, shape = PRODUCTS[product]
    inputs = keras.Input(shape)
    x = layers.BatchNormalization(axis=axis, name="norm")(BETWEEN[between]()(make()(inputs)))
    outputs = layers.Dense(3)(layers.ReLU()(x))  # a product right after it would take it up too
    return small_models.randomize(keras.Model(inputs, outputs))


def normalizations(model):
    """The names of a model's batch normalizations: those that are folded, and the others."""
    graph = LayerGraph.trace(model).flatten()
    calls = [call for call in graph.calls if Trait.NORMALIZES in traits(call)]
    folded = {call.path for call in calls if folded_into(graph, call) is not None}
    return folded, {call.path for call in calls} - folded


def left_in(path):
    """The names of the layers whose factor a file still multiplies by."""
    nodes = onnx.load(path).graph.node
    return {n.name.rpartition("/")[0] for n in nodes if n.op_type in ("BatchNormalization", "Mul")}


def check(model, path):
    folded, others = normalizations(model)
    left = left_in(path)
    assert not folded & left
    assert others <= left


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("product", PRODUCTS)
def test_file_of_floats_has_the_normalizations_that_are_not_folded(product, axis, tmp_path):
    model = normalized(product, axis=axis)
    check(model, export_onnx(model, tmp_path / "m.onnx"))


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("product", ["conv2d", "dense_of_sequence"])
def test_what_stands_before_a_normalization_may_keep_it_in_the_file(product, between, tmp_path):
    model = normalized(product, between)
    check(model, export_onnx(model, tmp_path / "m.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["dense_normalized", "residual_v2", "mobile", "blocks"])
def test_quantized_file_has_no_folded_normalization(name, target, tmp_path):
    model = golden.MODELS[name]()
    quantized = golden.quantized(name, target)
    left = left_in(export_onnx(quantized, tmp_path / "m.onnx"))
    folded, _ = normalizations(model)
    assert not folded & {name.replace("quant_", "") for name in left}


@pytest.mark.parametrize("cases", [[], [BNQDQCase()]], ids=["default", "BNQDQCase"])
def test_normalization_after_a_dense_is_folded_whatever_cases_are_passed(cases, tmp_path):
    model = golden.dense_normalized()
    quantized = quantize_model(model, custom_qdq_cases=cases)
    assert describe(quantized)["bn1"].reason == "folded into dense1"
    assert not left_in(export_onnx(quantized, tmp_path / "m.onnx"))
