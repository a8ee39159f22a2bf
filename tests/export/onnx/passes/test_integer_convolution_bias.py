import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.openvino.integer_convolution_bias import integer_convolution_bias


@pytest.mark.parametrize(("steps", "integers"), [(1.0, 2), (1.3, 1)])
def test_bias_of_a_convolution_in_whole_steps_becomes_integers(tmp_path, steps, integers):
    g = Graph(2, 4, 4)
    x = g.op("MaxPool", g.quantized(g.x, scale=0.02), kernel_shape=[2, 2])
    weight = g.int8_weight(3, 2, 1, 1, axis=0)
    scale = weight.producer().inputs[1].const_value.numpy()
    bias = (np.array([5, -12000, 777]) * steps * np.float32(0.02) * scale).astype("float32")
    y = g.op("Conv", x, weight, bias, kernel_shape=[1, 1])
    counts = g.check(tmp_path, y, integer_convolution_bias, 1e-6)
    assert counts["DequantizeLinear"] == 1 + integers
    assert ("it is not in whole steps" in g.log) == (integers == 1)
