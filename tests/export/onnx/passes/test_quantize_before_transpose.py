import keras
import numpy as np
import onnx
import pytest
from onnx_graphs import Graph

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.passes.tensorrt.quantize_before_transpose import quantize_before_transpose


def order(g):
    return [node.op_type for node in g.builder.graph]


def test_an_input_is_quantized_before_it_is_transposed(tmp_path):
    g = Graph(6, 6, 2)
    y = g.conv(g.quantized(g.op("Transpose", g.x, perm=[0, 3, 1, 2])), 2, 4)
    g.check(tmp_path, y, quantize_before_transpose)
    assert order(g) == ["QuantizeLinear", "DequantizeLinear", "Transpose", "Conv"]


def several_readers(g, moved):
    return [g.conv(g.quantized(moved), 2, 4), g.op("Neg", moved)]


def several_pairs(g, moved):
    integers = g.op("QuantizeLinear", moved, np.float32(0.1), np.int8(0))
    return [g.op("DequantizeLinear", integers, np.float32(0.1), np.int8(0)) for _ in range(2)]


@pytest.mark.parametrize("read", [several_readers, several_pairs])
def test_what_others_read_stays(tmp_path, read):
    g = Graph(6, 6, 2)
    y = read(g, g.op("Transpose", g.x, perm=[0, 3, 1, 2]))
    before = order(g)
    g.check(tmp_path, y, quantize_before_transpose)
    assert order(g) == before


def test_within_the_network_the_order_stays(tmp_path):
    g = Graph(6, 6, 2)
    y = g.quantized(g.op("Transpose", g.op("Relu", g.x), perm=[0, 3, 1, 2]))
    g.check(tmp_path, y, quantize_before_transpose)
    assert order(g)[1] == "Transpose"


def test_the_integers_are_compared_with_keras_in_its_order(tmp_path):
    x = keras.Input((6, 6, 3), dtype="float16")
    y = keras.layers.Conv2D(4, 3, dtype="mixed_float16")(x)  # so it is verified tensor by tensor
    model = quantize_model(keras.Model(x, y), target="tensorrt")
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float16")
    calibrate(model, images, verbose=0)
    file = export_onnx(model, tmp_path / "model.onnx", verify_with=images)
    assert next(node.op_type for node in onnx.load(file).graph.node if node.op_type != "Cast") == "QuantizeLinear"
