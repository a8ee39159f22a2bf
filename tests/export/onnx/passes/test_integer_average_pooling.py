import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.tensorrt.integer_average_pooling import integer_average_pooling
from tensorflow_quantization.onnx_graph.queries import attribute


@pytest.mark.parametrize(
    ("padding", "counts"),
    [({"pads": [0, 0, 0, 0]}, 1), ({"pads": [1, 1, 1, 1]}, 0), ({"auto_pad": "SAME_UPPER"}, 0)],
    ids=["unpadded", "padded", "unknown"],
)
def test_unpadded_average_between_quantizers_counts_its_padding(tmp_path, padding, counts):
    g = Graph(2, 6, 6)
    y = g.op("AveragePool", g.quantized(g.x), kernel_shape=[3, 3], strides=[2, 2], **padding)
    g.check(tmp_path, [g.quantized(y)], integer_average_pooling)
    assert attribute(y.producer(), "count_include_pad", 0) == counts


def test_average_of_floats_stays(tmp_path):
    g = Graph(2, 6, 6)
    y = g.op("AveragePool", g.x, kernel_shape=[2, 2])
    g.check(tmp_path, [y], integer_average_pooling)
    assert attribute(y.producer(), "count_include_pad") is None
