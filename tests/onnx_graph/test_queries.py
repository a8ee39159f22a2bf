"""What stands where in a graph."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.onnx_graph import queries


def test_chains_are_matched_along_first_inputs():
    g = Graph(4)
    limited = g.op("Clip", g.x, -1.0)
    y = g.op("MatMul", g.quantized(limited), g.int8_weight(4, 3, axis=1))
    pattern = ("Clip", "QuantizeLinear", "DequantizeLinear", "MatMul")
    (found,) = queries.chains(g.builder.graph, *pattern)
    assert [node.op_type for node in found] == list(pattern)
    assert found[0] is limited.producer() and found[-1] is y.producer()
    assert queries.chain_to(y.producer(), "Relu", "MatMul") is None
    assert queries.chain_to(y.producer(), "Relu") is None


def test_a_chain_is_looked_up_when_it_is_due():
    g = Graph(4)
    first, second = g.op("Neg", g.op("Relu", g.x)), g.op("Neg", g.op("Relu", g.x))
    found = queries.chains(g.builder.graph, "Relu", "Neg")
    assert next(found)[1] is first.producer()
    second.producer().replace_input_with(0, g.x.onnx)
    assert list(found) == []


@pytest.mark.parametrize(("reads", "is_output", "private"), [(1, False, True), (2, False, False), (1, True, False)])
def test_a_private_value_has_one_reader_and_is_not_returned(reads, is_output, private):
    g = Graph(4)
    y = g.op("Relu", g.x)
    for _ in range(reads):
        g.op("Neg", y)
    if is_output:
        g.builder.graph.outputs.append(y)
    assert queries.is_private(y) is private
    assert (queries.only_reader(y, "Neg") is not None) is private
    assert queries.only_reader(y, "Exp") is None and queries.only_reader(None) is None


def test_left_out_operands_attributes_and_producers_are_none():
    g = Graph(4)
    node = g.op("Clip", g.x, None, 6.0).producer()
    assert queries.operand(node, 1) is queries.operand(node, 5) is queries.operand(None, 0) is None
    assert queries.attribute(node, "axis") is None and queries.attribute(node, "axis", 1) == 1
    assert queries.producer(g.x.onnx) is None and queries.producer(node.outputs[0], "Relu", "Clip") is node
    assert queries.producer(node.outputs[0], "Relu") is None


def test_constants_are_known_through_what_moves_and_quantizes_them():
    g = Graph(3, 4)
    weight = g.op("Transpose", g.int8_weight(3, 4, axis=0), perm=[1, 0])
    number = g.op("Constant", value=ir.Tensor(np.float32([1, 2])))
    assert queries.is_constant(weight) and queries.constant(weight) is None
    assert queries.constant(number).tolist() == [1, 2]
    assert not queries.is_constant(g.op("Relu", weight)) and not queries.is_constant(g.x.onnx)


def test_shape_is_known_through_quantizers_transpositions_and_reshapes():
    g = Graph(3, 4, 5)
    y = g.op("Transpose", g.quantized(g.x), perm=[0, 2, 1, 3])
    assert queries.shape_of(y) == (None, 4, 3, 5)
    assert queries.shape_of(g.op("Reshape", y, np.array([0, -1, 5]))) == (None, None, 5)
    assert queries.shape_of(g.op("Relu", y)) is queries.shape_of(None) is None


@pytest.mark.parametrize(
    ("op_type", "attributes", "axis"),
    [
        ("Conv", {}, 0),
        ("ConvTranspose", {}, 1),
        ("Gemm", {}, 1),
        ("Gemm", {"transB": 1}, 0),
        ("MatMul", {}, 1),
        ("Add", {}, None),
    ],
)
def test_axis_of_the_output_channels(op_type, attributes, axis):
    g = Graph(4)
    node = g.op(op_type, g.x, g.weight(4, 4), **attributes).producer()
    assert queries.output_axis(node, 2) == axis


def test_names_of_nodes_and_their_layers():
    g = Graph(4)
    (y,) = g.builder.node("Relu", [g.x], {}, "block/conv/Relu")
    assert queries.name_of(y.producer()) == "block/conv/Relu"
    assert queries.layer_of(y.producer()) == queries.layer_of(y) == "block/conv"
    y.producer().name = ""
    assert queries.name_of(y.producer()) == "Relu of block/conv/Relu"
