import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.openvino.drop_repeated_quantizers import drop_repeated_quantizers


@pytest.mark.parametrize(("scale", "left"), [(0.02, 1), (0.03, 2)])
def test_quantizer_behind_a_pool_of_the_same_integers_is_dropped(tmp_path, scale, left):
    g = Graph(2, 4, 4)
    pooled = g.op("MaxPool", g.quantized(g.x), kernel_shape=[2, 2])
    y = g.conv(g.quantized(pooled, scale=scale), 2, 3)
    assert g.check(tmp_path, y, drop_repeated_quantizers)["QuantizeLinear"] == left
    assert ("another scale or zero point" in g.log) == (left == 2)
