import keras
import numpy as np
import onnx
import pytest
from onnx_graphs import Graph

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.passes.tensorrt.scale_before_transpose import scale_before_transpose

PER_CHANNEL = np.asarray([0.5, 2.0], "float32").reshape(1, 2, 1, 1)


def order(g):
    return [node.op_type for node in g.builder.graph]


def transposed(g):
    return g.op("Transpose", g.x, perm=[0, 3, 1, 2])


@pytest.mark.parametrize("factor", [0.5, PER_CHANNEL, PER_CHANNEL[0], np.ones((6, 5), "float32") * 2])
def test_an_input_is_scaled_before_it_is_transposed(tmp_path, factor):
    g = Graph(6, 5, 2)
    scaled = g.op("Sub", g.op("Mul", transposed(g), factor), [[[1.0]], [[-1.0]]])
    y = g.conv(g.quantized(scaled), 2, 4)
    g.check(tmp_path, y, scale_before_transpose)
    assert order(g) == ["Mul", "Sub", "Transpose", "QuantizeLinear", "DequantizeLinear", "Conv"]


def test_a_constant_may_be_the_first_operand(tmp_path):
    g = Graph(6, 5, 2)
    y = g.conv(g.quantized(g.op("Sub", PER_CHANNEL, transposed(g))), 2, 4)
    g.check(tmp_path, y, scale_before_transpose)
    assert order(g)[:2] == ["Sub", "Transpose"]


def read_by_another(g, moved):
    scaled = g.op("Mul", moved, 0.5)
    return [g.conv(g.quantized(scaled), 2, 4), g.op("Neg", scaled)]


def not_quantized(g, moved):
    return g.conv(g.op("Mul", moved, 0.5), 2, 4)


def of_more_axes(g, moved):
    return g.quantized(g.op("Mul", moved, np.full((2, 1, 1, 1, 1), 0.5, "float32")))


def with_a_tensor(g, moved):
    return g.quantized(g.op("Mul", moved, g.op("ReduceMean", moved)))


@pytest.mark.parametrize("read", [read_by_another, not_quantized, of_more_axes, with_a_tensor])
def test_other_transposes_stay(tmp_path, read):
    g = Graph(6, 5, 2)
    y = read(g, transposed(g))
    before = order(g)
    g.check(tmp_path, y, scale_before_transpose)
    assert order(g) == before


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_images_are_scaled_and_rounded_before_they_are_transposed(tmp_path, precision):
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Normalization(mean=[100.0, 110, 120], variance=[50.0**2, 60**2, 70**2])(inputs)
    model = quantize_model(keras.Model(inputs, keras.layers.Conv2D(4, 3)(x)), target="tensorrt")
    images = np.random.default_rng(0).uniform(0, 255, (4, 6, 6, 3)).astype("float32")
    calibrate(model, images, verbose=0)
    file = export_onnx(model, tmp_path / "model.onnx", precision=precision, verify_with=images)
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.index("QuantizeLinear") < kinds.index("Transpose")
