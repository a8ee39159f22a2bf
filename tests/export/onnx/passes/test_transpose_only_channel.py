import keras
import numpy as np
import onnx
import pytest
from onnx_graphs import Graph

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.passes.tensorrt.transpose_only_channel import transpose_only_channel


def order(g):
    return [node.op_type for node in g.builder.graph]


def reshaped(g, *sizes):
    return g.op("Reshape", g.x, np.asarray(sizes, np.int64))


def test_the_only_channel_is_transposed(tmp_path):
    g = Graph(6, 5, 1)
    y = g.conv(g.quantized(reshaped(g, 0, 1, 6, 5)), 1, 4)
    g.check(tmp_path, y, transpose_only_channel)
    assert order(g) == ["Transpose", "QuantizeLinear", "DequantizeLinear", "Conv"]


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((6, 5, 2), (0, 2, 6, 5)), ((6, 5, 1), (0, 1, 5, 6)), ((6, 5, 1), (0, 6, 5)), ((1,), (0, 1))],
    ids=["two channels", "other sizes", "fewer axes", "no image"],
)
def test_other_reshapes_stay(tmp_path, shape, sizes):
    g = Graph(*shape)
    y = g.op("Relu", reshaped(g, *sizes))
    g.check(tmp_path, y, transpose_only_channel)
    assert order(g)[0] == "Reshape"


@pytest.mark.parametrize("scaled", [False, True])
def test_an_image_of_one_channel_is_quantized_first(tmp_path, scaled):
    x = image = keras.Input((8, 6, 1))
    if scaled:
        x = keras.layers.Rescaling(1 / 255)(x)
    y = keras.layers.Conv2D(4, 3, padding="same")(x)
    model = quantize_model(keras.Model(image, y), target="tensorrt")
    images = np.random.default_rng(0).normal(size=(4, 8, 6, 1)).astype("float32")
    calibrate(model, images, verbose=0)
    nodes = [node.op_type for node in onnx.load(export_onnx(model, tmp_path / "m.onnx", verify_with=images)).graph.node]
    assert nodes.index("QuantizeLinear") < nodes.index("Transpose") and "Reshape" not in nodes
