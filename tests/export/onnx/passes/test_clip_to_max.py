import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.openvino.clip_to_max import clip_to_max


def test_limit_in_front_of_a_matrix_product_is_a_max(tmp_path):
    g = Graph(4)
    y = g.op("MatMul", g.quantized(g.op("Clip", g.x, -0.1)), g.int8_weight(4, 3, axis=1))
    counts = g.check(tmp_path, y, clip_to_max)
    assert counts["Max"] == 1
    assert counts["Clip"] == 0


@pytest.mark.parametrize("limits", [(-0.1, 0.1), (None, 0.1)])
def test_other_limits_in_front_of_it_stay(tmp_path, limits):
    g = Graph(4)
    y = g.op("MatMul", g.quantized(g.op("Clip", g.x, *limits)), g.int8_weight(4, 3, axis=1))
    assert g.check(tmp_path, y, clip_to_max)["Clip"] == 1
    assert "stays: it has an upper limit, too" in g.log
