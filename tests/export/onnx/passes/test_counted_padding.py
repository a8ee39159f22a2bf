import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.openvino.counted_padding import counted_padding


@pytest.mark.parametrize(
    ("zero_point", "counted", "pads"), [(3, 1, 1), (0, 1, 0), (3, 0, 0)], ids=["offset", "symmetric", "not counted"]
)
def test_counted_padding_is_quantized_before_the_pool(tmp_path, zero_point, counted, pads):
    g = Graph(2, 5, 5)
    x = g.quantized(g.x, zero_point=zero_point)
    y = g.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1], count_include_pad=counted)
    counts = g.check(tmp_path, [y], counted_padding)
    assert counts["Pad"] == pads
    assert counts["QuantizeLinear"] == 1 + pads
    assert ("its zero point is 0" in g.log) == (zero_point == 0)
