import numpy as np
from onnx_graphs import Graph

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
