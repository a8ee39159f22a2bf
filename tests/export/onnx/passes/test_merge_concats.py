import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.merge_concats import merge_concats


def test_concatenations_of_one_axis_are_merged(tmp_path):
    g = Graph(3, 4)
    relu, tanh = g.op("Relu", g.x), g.op("Tanh", g.x)
    inner = g.op("Concat", g.op("Concat", relu, tanh, axis=1), g.x, axis=1)
    y = g.op("Concat", inner, g.op("Concat", relu, g.x, axis=1), relu, axis=1)
    assert g.check(tmp_path, y, merge_concats)["Concat"] == 1
    assert len(y.producer().inputs) == 6


@pytest.mark.parametrize("other", ["axis", "reader"])
def test_concatenations_of_another_axis_or_with_another_reader_stay(tmp_path, other):
    g = Graph(3, 4)
    inner = g.op("Concat", g.x, g.op("Relu", g.x), axis=2 if other == "axis" else 1)
    beside = g.op("Concat", g.x, g.x, axis=2) if other == "axis" else g.op("Tanh", inner)
    outputs = [g.op("Concat", inner, beside, axis=1)]
    assert g.check(tmp_path, outputs, merge_concats)["Concat"] == (3 if other == "axis" else 2)
    assert ("it joins another axis" if other == "axis" else "something else reads it") in g.log
