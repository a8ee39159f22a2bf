import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_graphs import Graph
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export.onnx.passes.common.integer_padding import integer_padding


def test_integers_are_padded_with_their_zero_point(tmp_path):
    g = Graph(2, 4, 4)
    x = g.op("Pad", g.quantized(g.x, zero_point=7), np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = g.op("MaxPool", g.quantized(x, zero_point=7), kernel_shape=[2, 2])
    counts = g.check(tmp_path, y, integer_padding)
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 1


def test_floats_are_padded_where_the_quantizers_differ(tmp_path):
    g = Graph(2, 4, 4)
    x = g.op("Pad", g.quantized(g.x, zero_point=7), np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    counts = g.check(tmp_path, g.quantized(x, zero_point=8), integer_padding)
    assert counts["QuantizeLinear"] == 2
    assert "the quantizers before and after it differ" in g.log


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_a_pad_that_is_an_operation_is_verified_in_integers(target, mode, tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = ops.pad(layers.Conv2D(4, 3)(inputs), ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    model = quantize_model(keras.Model(inputs, layers.Dense(3)(x)), target=target, weight_bits=EXACT_WEIGHT_BITS)
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
    calibrate(model, images, verbose=0)
    proto = export(model, tmp_path / "m.onnx", verify_with=images, verify_runtime=target)
    assert op_counts(proto)["Pad"] == 1
