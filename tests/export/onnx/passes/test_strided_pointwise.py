import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.openvino.strided_pointwise import strided_pointwise


def test_strides_of_pointwise_convolutions_become_a_pool(tmp_path):
    g = Graph(2, 6, 6)
    x = g.quantized(g.x)
    counts = g.check(tmp_path, [g.conv(x, 2, 3, strides=[2, 2]) for _ in range(2)], strided_pointwise, 1e-6)
    assert counts["MaxPool"] == 1


@pytest.mark.parametrize("other", [{"size": 1}, {"size": 3, "strides": [2, 2]}])
def test_strides_stay_where_another_convolution_reads_the_tensor(tmp_path, other):
    g = Graph(2, 6, 6)
    x = g.quantized(g.x)
    outputs = [g.conv(x, 2, 3, strides=[2, 2]), g.conv(x, 2, 3, **other)]
    assert g.check(tmp_path, outputs, strided_pointwise)["MaxPool"] == 0
    assert "its readers do not all have the same strides" in g.log
