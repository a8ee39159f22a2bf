"""Find constants, operands, producers, readers and chains of operators in a graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.operators import MOVING, SELECTING

#: ONNX Runtime has Q/DQ in its own domain, too: with 16- and 4-bit integers before ONNX had them.
_QDQ_DOMAINS = ("", "ai.onnx", "com.microsoft")


def is_quantize(node: ir.Node | None) -> bool:
    """Whether `node` is a QuantizeLinear."""
    return node is not None and node.op_type == "QuantizeLinear" and node.domain in _QDQ_DOMAINS


def is_dequantize(node: ir.Node | None) -> bool:
    """Whether `node` is a DequantizeLinear."""
    return node is not None and node.op_type == "DequantizeLinear" and node.domain in _QDQ_DOMAINS


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array in an initializer or a Constant node; `None` for any other value."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is an initializer or a Constant, perhaps moved, cast, quantized or dequantized."""
    while value is not None:
        if ir.convenience.get_const_tensor(value) is not None:
            return True
        node = value.producer()
        follows = is_quantize(node) or is_dequantize(node)
        if node is None or not (follows or node.op_type in MOVING or node.op_type == "Cast"):
            return False
        value = operand(node, 0)
    return False


def operand(node: ir.Node | None, index: int) -> ir.Value | None:
    """The input of `node` at `index`; `None` if the input is omitted, or `node` is `None`."""
    return node.inputs[index] if node is not None and index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of the attribute `name`; `default` if the node does not have it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes `value`, if its type is in `op_types` or these are omitted; otherwise `None`."""
    node = None if value is None else value.producer()
    return node if node is not None and (not op_types or node.op_type in op_types) else None


def readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read `value`; a node that reads it twice is in the list twice."""
    return [use.node for use in value.uses()]


def is_private(value: ir.Value) -> bool:
    """Whether `value` is read exactly once, and is not an output of the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def only_reader(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The only reader of a private value, if its type is in `op_types` or these are omitted; otherwise `None`."""
    if value is None or not is_private(value):
        return None
    (node,) = readers(value)
    return node if not op_types or node.op_type in op_types else None


def chain_to(node: ir.Node, *op_types: str) -> list[ir.Node] | None:
    """The nodes of these types that end at `node`, each the producer of the next node's first input; `None`: no match.

    For example, `chain_to(node, "Pad", "DequantizeLinear", "Conv")` returns a Pad, a DequantizeLinear, and `node`.
    """
    found = [node]
    if node.op_type != op_types[-1]:
        return None
    for op_type in reversed(op_types[:-1]):
        before = producer(operand(found[0], 0), op_type)
        if before is None:
            return None
        found.insert(0, before)
    return found


def chains(graph: ir.Graph, *op_types: str) -> Iterator[list[ir.Node]]:
    """All chains of nodes of these types, in the order of their last nodes; see `chain_to`.

    The graph may change during the iteration: each chain is searched when its turn comes. New nodes are not visited.
    """
    for node in list(graph):
        found = chain_to(node, *op_types)
        if found is not None:
            yield found


def moves_only(node: ir.Node | None) -> bool:
    """Whether the outputs of `node` hold only values of its first input, and zeros."""
    if node is None or node.op_type not in SELECTING:
        return False
    if node.op_type != "Pad":
        return True
    value = operand(node, 2)
    padding = constant(value)
    return value is None or (padding is not None and not padding.any())  # every scheme quantizes zero exactly


def shape_of(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """The shape of `value`, derived through quantizers, Transpose and Reshape; an unknown size is `None`."""
    if value is None:
        return None
    if value.shape is not None:
        return tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    node = producer(value, "QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape")
    before = shape_of(operand(node, 0))
    if node is None or before is None or is_quantize(node) or is_dequantize(node):
        return before
    if node.op_type == "Transpose":
        return tuple(before[axis] for axis in attribute(node, "perm") or reversed(range(len(before))))
    dims = constant(operand(node, 1))
    if dims is None:
        return None
    return tuple(before[i] if d == 0 else None if d < 0 else int(d) for i, d in enumerate(dims))


def output_axis(node: ir.Node, rank: int) -> int | None:
    """The axis of the output channels in the weight, the second factor; `None` for an operator without weights."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)


def name_of(node: ir.Node) -> str:
    """The name of `node`; an unnamed node is called "<operator> of <output>"."""
    if node.name:
        return node.name
    outputs = [value.name for value in node.outputs if value.name]
    return f"{node.op_type} of {outputs[0]}" if outputs else node.op_type


def layer_of(named: ir.Node | ir.Value) -> str:
    """The layer that a node or value of an exported graph belongs to: its name up to the last slash."""
    return layer_in(named.name or "")


def layer_in(name: str) -> str:
    """The layer in the name of a node or value, see `layer_of`."""
    return name.rsplit("/", 1)[0]
