import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.reduction_axes import reduction_axes


@pytest.mark.parametrize("opset", [17, 18])
def test_reductions_have_their_axes_where_the_opset_wants_them(tmp_path, opset):
    g = Graph(3, 4, opset=opset)
    y = g.op("ReduceMean", g.x, axes=[1], keepdims=0)
    reduction_axes(g.builder)
    g.check(tmp_path, y, lambda builder: None)
    assert len(y.producer().inputs) == (1 if opset == 17 else 2)
