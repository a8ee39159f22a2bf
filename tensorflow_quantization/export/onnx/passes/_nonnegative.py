"""Which tensors of a graph are never negative, as far as their operators tell."""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.operators import POOLING, SELECTING
from tensorflow_quantization.onnx_graph.queries import attribute, constant, operand

#: Never negative, whatever goes in.
_ALWAYS = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Sqrt", "Abs"})
#: Not negative if none of the inputs is.
_IF_ALL = frozenset({"Add", "Mul", "Div", "Concat", "Min"})
#: Not negative if the first input is not: they move, repeat or average its elements, or round them.
_IF_FIRST = SELECTING | POOLING | {"Expand", "ReduceSum", "QuantizeLinear", "DequantizeLinear"}


def find_nonnegative(graph: ir.Graph) -> set[ir.Value]:
    """One walk in the graph's topological order."""
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
        # A padding value that is left out is zero.
        return is_nonnegative(operand(node, 0)) and (operand(node, 2) is None or is_nonnegative(operand(node, 2)))
    if node.op_type == "Resize":
        return is_nonnegative(operand(node, 0)) and attribute(node, "mode", "nearest") != "cubic"
    if node.op_type == "DequantizeLinear" and (integers := constant(operand(node, 0))) is not None:
        zero_point = constant(operand(node, 2))
        return bool((integers >= (0 if zero_point is None else zero_point.max())).all())
    return node.op_type in _IF_FIRST and is_nonnegative(operand(node, 0))
