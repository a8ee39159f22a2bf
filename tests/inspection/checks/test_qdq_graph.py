"""The view of a graph that all rules share."""

from qdq_files import QdqFile

from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import name_of


def load(tmp_path, build, **kwargs):
    file = QdqFile(**kwargs)
    return QdqGraph.load(file.save(tmp_path / "m.onnx", *build(file)))


def only(nodes):
    (node,) = nodes
    return node


def test_weighted_node_knows_its_factors(tmp_path):
    graph = load(tmp_path, lambda f: [f.conv(f.pair(f.input()))])
    conv = only(graph.weighted)
    assert conv.quantized and conv.activations == [conv.data] and conv.weights == [conv.weight]
    assert name_of(conv.data.quantize) == "q" and conv.weight.quantize is None
    assert Quantization.of(conv.weight.dequantize).per_channel


def test_constants_on_the_left_are_weights(tmp_path):
    graph = load(tmp_path, lambda f: [f.op("MatMul", f.weights(5, 8, axis=0), f.pair(f.input((1, 8, 3))))])
    product = only(graph.weighted)
    assert product.data.is_weight and not product.weight.is_weight


def test_source_looks_through_what_moves_values_only(tmp_path):
    def build(f):
        x = f.op("Transpose", f.op("Identity", f.pair(f.input((1, 8, 8, 8)))))
        return [f.conv(x, name="moved"), f.conv(f.op("Sin", x), name="computed")]

    moved, computed = load(tmp_path, build).weighted
    assert [node.op_type for node in moved.data.passed] == ["Transpose", "Identity"]
    assert moved.data.dequantize is not None and computed.data.dequantize is None


def test_concat_is_quantized_where_all_its_inputs_are(tmp_path):
    def build(f):
        x = f.pair(f.input((1, 4, 8, 8)))
        joined = f.op("Concat", x, x, axis=1)
        half = f.op("Concat", x, f.op("Sin", x), axis=1)
        return [f.conv(joined, name="joined"), f.conv(half, name="half")]

    joined, half = load(tmp_path, build).weighted
    assert joined.data.dequantize is not None and half.data.dequantize is None


def test_chain_ends_at_a_branch_an_output_or_another_operator(tmp_path):
    def build(f):
        a = f.op("Relu", f.op("Sin", f.input()))
        b = f.op("Relu", f.op("Cos", f.input(name="z")))
        return [f.pair(a), f.op("Neg", a), b]

    graph = load(tmp_path, build)
    sin, cos = (next(node for node in graph.nodes if node.op_type == kind) for kind in ("Sin", "Cos"))
    branch = graph.follow(sin.outputs[0], ("Relu",))
    assert [node.op_type for node in branch.passed] == ["Relu"] and len(branch.ends) == 2 and branch.end is None
    output = graph.follow(cos.outputs[0], ("Relu",))
    assert output.is_output and output.ends == () and output.end is None
    assert graph.follow(cos.outputs[0], ()).end.op_type == "Relu"
