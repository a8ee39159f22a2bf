"""Find the tensors of a graph that are never negative, from the operators that compute them."""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.operators import POOLING, SELECTING
from tensorflow_quantization.onnx_graph.queries import attribute, constant, operand

#: Never negative, whatever the inputs are.
_ALWAYS = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Sqrt", "Abs"})
#: Not negative if all inputs are not negative.
_IF_ALL = frozenset({"Add", "Mul", "Div", "Concat", "Min"})
#: Not negative if the first input is not negative: they move, repeat, average, add up or round its elements.
_IF_FIRST = SELECTING | POOLING | {"Expand", "ReduceSum", "QuantizeLinear", "DequantizeLinear"}


def find_nonnegative(graph: ir.Graph) -> set[ir.Value]:
    """The tensors that are never negative, found in one pass over the graph in topological order."""
    found: set[ir.Value] = set()

    def is_nonnegative(value: ir.Value | None) -> bool:
        numbers = constant(value)
        return value in found if numbers is None else bool((numbers >= 0).all())

    for node in graph:
        if _follows(node, is_nonnegative):
            found.update(node.outputs)
    return found


def _follows(node: ir.Node, is_nonnegative) -> bool:
    if node.op_type in _ALWAYS:
        return True
    if node.op_type in _IF_ALL:
        return all(is_nonnegative(x) for x in node.inputs)
    if node.op_type == "Max":
        return any(is_nonnegative(x) for x in node.inputs)
    if node.op_type == "Clip":
        low = constant(operand(node, 1))
        return (low is not None and bool((low >= 0).all())) or is_nonnegative(operand(node, 0))
    if node.op_type == "Pad":
        # An omitted padding value is zero.
        return is_nonnegative(operand(node, 0)) and (operand(node, 2) is None or is_nonnegative(operand(node, 2)))
    if node.op_type == "Resize":
        return is_nonnegative(operand(node, 0)) and attribute(node, "mode", "nearest") != "cubic"
    if node.op_type == "DequantizeLinear" and (integers := constant(operand(node, 0))) is not None:
        zero_point = constant(operand(node, 2))
        return bool((integers >= (0 if zero_point is None else zero_point.max())).all())
    return node.op_type in _IF_FIRST and is_nonnegative(operand(node, 0))
