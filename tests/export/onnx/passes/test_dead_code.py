from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.dead_code import remove_dead_code


def test_dead_nodes_and_constants_are_removed(tmp_path):
    g = Graph(4)
    g.op("Add", g.op("Mul", g.x, 3.0), 4.0)
    assert g.check(tmp_path, g.op("Relu", g.x), remove_dead_code) == {"Relu": 1}
    assert not g.builder.graph.initializers
