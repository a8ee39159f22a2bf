import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, export, layer_model, op_counts
from small_models import randomize

from tensorflow_quantization import QuantizationSpec, calibrate, quantize_model

PRODUCTS = [
    ("ab,bc->ac", (5,), 5, "c", (7,)),
    ("abc,cd->abd", (None, 5), 4, "d", (3, 4)),
    ("abc,cde->abde", (None, 2, 3), 4, "de", (3, 4)),
    ("abcd,cde->abe", (None, 5), 3, "e", (6, 2, 4)),
    ("...x,xy->...y", (6,), 5, "y", (3, 2, 5)),
    ("abc,dc->abd", (4, 6), 3, None, (4, 5)),
    ("abc,cd->adb", (6, 4), 3, "d", (4, 5)),
    ("abc,bd->acd", (5, 3), 3, "d", (4, 5)),
    ("abcd,dbe->ace", (3, 7), 3, None, (2, 3, 4)),
]


def make(equation, output_shape, bias, activation=None):
    return layers.EinsumDense(equation, output_shape=output_shape, bias_axes=bias, activation=activation)


@pytest.mark.parametrize(("equation", "output_shape", "_", "bias", "shape"), PRODUCTS)
def test_a_matrix_product(tmp_path, equation, output_shape, _, bias, shape):
    model = layer_model(make(equation, output_shape, bias, "tanh"), shape)
    counts = op_counts(assert_agrees(model, tmp_path / "m.onnx"))
    assert counts["MatMul"] == 1 and not counts["Einsum"]


def test_a_bias_of_what_the_kernel_makes_comes_right_behind_the_product(tmp_path):
    model = layer_model(make("abc,cde->abde", (None, 2, 3), "de"), (5, 4))
    proto = assert_agrees(model, tmp_path / "m.onnx")
    assert [node.op_type for node in proto.graph.node] == ["MatMul", "Add", "Reshape"]


@pytest.mark.parametrize("bias", ["b", "bd", "e", "bde"])
def test_bias_of_other_axes(tmp_path, bias):
    assert_agrees(layer_model(make("abc,cde->abde", (5, 2, 3), bias), (5, 4)), tmp_path / "m.onnx")


def test_sequences_of_any_length(tmp_path):
    assert_agrees(layer_model(make("abc,cde->abde", (None, 2, 3), "de"), (None, 4)), tmp_path / "m.onnx")


def test_what_is_no_matrix_product(tmp_path):
    model = layer_model(make("abc,bcd->abd", (3, 5), "d"), (3, 4))
    assert op_counts(assert_agrees(model, tmp_path / "m.onnx"))["Einsum"] == 1


@pytest.mark.parametrize(("equation", "output_shape", "_", "bias", "shape"), PRODUCTS)
def test_quantized_per_output_channel(tmp_path, equation, output_shape, _, bias, shape):
    inputs = keras.Input(shape)
    model = randomize(keras.Model(inputs, make(equation, output_shape, bias)(inputs)))
    spec = QuantizationSpec()
    spec.add("EinsumDense", is_keras_class=True)
    quantized = quantize_model(model, quantization_spec=spec)
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    calibrate(quantized, x)
    proto = export(quantized, tmp_path / "m.onnx", verify_with=x)
    assert op_counts(proto)["MatMul"] == 1
    producers = {o: n.op_type for n in proto.graph.node for o in n.output}
    product = next(n for n in proto.graph.node if n.op_type == "MatMul")
    assert [producers[x] for x in product.input] == ["DequantizeLinear"] * 2
    (kernel,) = (i for i in proto.graph.initializer if i.name.endswith("/kernel"))
    (scale,) = (i for i in proto.graph.initializer if i.name.endswith("/kernel_scale"))
    assert list(scale.dims) == [kernel.dims[1]]
