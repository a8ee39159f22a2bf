import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.merge_reshapes import merge_reshapes


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [([0, -1], [0, 2, 6], 1), ([0, 2, 6], [-1, 4], 1), ([0, 2, 6], [0, 0, 3, 2], 2), ([-1, 6], [0, 2, 3], 2)],
)
def test_reshapes_are_merged_where_zeros_mean_the_same(tmp_path, first, second, count):
    g = Graph(3, 4)
    y = g.op("Reshape", g.op("Reshape", g.x, np.asarray(first)), np.asarray(second))
    assert g.check(tmp_path, g.op("Relu", y), merge_reshapes)["Reshape"] == count
    assert ("its zeros would copy other axes" in g.log) == (count == 2)


@pytest.mark.parametrize(("last", "count"), [([0, 4, 3], 1), ([0, 0, 3, 2], 2)])
def test_a_quantizer_skips_the_reshape_before_it_if_another_one_follows(tmp_path, last, count):
    g = Graph(3, 4)
    x = g.op("Reshape", g.x, np.asarray([0, 2, 6]))
    y = g.op("Reshape", g.quantized(x), np.asarray(last))
    assert g.check(tmp_path, y, merge_reshapes)["Reshape"] == count
    assert ("the zeros of a later Reshape" in g.log) == (count == 2)


def test_a_reshape_to_the_shape_that_is_there_is_removed(tmp_path):
    g = Graph(3, 4)
    y = g.op("Relu", g.op("Reshape", g.op("Reshape", g.x, np.asarray([0, -1])), np.asarray([0, 3, 4])))
    assert g.check(tmp_path, y, merge_reshapes) == {"Relu": 1}
