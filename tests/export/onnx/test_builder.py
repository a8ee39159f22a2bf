"""Inserting nodes into a graph that is there."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.dead_code import remove_dead_code


def types(g):
    return [node.op_type for node in g.builder.graph]


def test_a_node_is_inserted_before_or_after_another():
    g = Graph(4)
    y = g.op("Relu", g.x)
    g.builder.insert("Exp", [g.x], before=y.producer())
    g.builder.insert("Neg", [y], after=y.producer())
    assert types(g) == ["Exp", "Relu", "Neg"]


def test_an_inserted_node_is_named_after_the_layer_of_the_other_node():
    g = Graph(4)
    (y,) = g.builder.node("Relu", [g.x], {}, "layer/Relu")
    names = [g.builder.insert("Neg", [y], after=y.producer()).name for _ in range(2)]
    assert names == ["layer/Neg", "layer/Neg_1"]
    assert g.builder.insert("Neg", [y], after=y.producer(), name="other").producer().name == "other"


def test_arrays_become_constants_and_attributes_that_are_none_are_left_out():
    g = Graph(4)
    y = g.op("Relu", g.x)
    y.shape, y.type = ir.Shape(["batch", 4]), ir.TensorType(ir.DataType.FLOAT)
    added = g.builder.insert("Clip", [y, None, np.float32(1)], {"no": None}, after=y.producer(), like=y)
    node = added.producer()
    assert node.inputs[1] is None and node.inputs[2].const_value.numpy() == 1 and not node.attributes
    assert (added.shape, added.type) == (y.shape, y.type)


def test_a_place_is_needed():
    g = Graph(4)
    node = g.op("Relu", g.x).producer()
    for place in ({}, {"before": node, "after": node}):
        with pytest.raises(ValueError, match="either before= or after="):
            g.builder.insert("Neg", [g.x], **place)


def test_a_constant_that_was_removed_as_dead_code_returns_to_the_graph_with_its_next_reader():
    g = Graph(4)
    dead = g.op("Add", g.x, [1.0, 2.0, 3.0, 4.0])
    y = g.op("Relu", g.x)
    g.builder.graph.outputs.append(y)
    assert remove_dead_code(g.builder) == 2 and dead.graph is None
    added = g.builder.insert("Add", [g.x, np.float32([1, 2, 3, 4])], before=y.producer())
    assert added.producer().inputs[1] in g.builder.graph.initializers.values()
