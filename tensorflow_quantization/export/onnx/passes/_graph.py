"""What passes ask about a graph, and what several of them write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder


def array(value: ir.Value | None) -> np.ndarray | None:
    """The constant that `value` is, or `None`."""
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def operand(node: ir.Node | None, index: int) -> ir.Value | None:
    """An input of a node, `None` where it is left out or there is no node."""
    return node.inputs[index] if node is not None and index < len(node.inputs) else None


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes `value`, if it is of one of these types."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types else None


def is_private(value: ir.Value) -> bool:
    """Whether exactly one node reads `value` and the graph does not return it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let everybody, the graph's outputs included, read `new` in the place of `old`."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def ints(node: ir.Node, attribute: str) -> list[int] | None:
    """An attribute that is a list of integers, `None` if it is not set."""
    found = node.attributes.get(attribute)
    return list(found.as_ints()) if found is not None else None


def integer(node: ir.Node, attribute: str, default: int) -> int:
    """An attribute that is an integer."""
    found = node.attributes.get(attribute)
    return found.as_int() if found is not None else default


def shape_of(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """What is known of the shape of `value`, looking back through quantizers, transpositions and reshapes."""
    if value is None:
        return None
    if value.shape is not None:
        return tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    node = value.producer()
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape"):
        return None
    before = shape_of(operand(node, 0))
    if before is None or node.op_type.endswith("Linear"):
        return before
    if node.op_type == "Transpose":
        return tuple(before[axis] for axis in ints(node, "perm") or reversed(range(len(before))))
    dims = array(operand(node, 1))
    if dims is None:
        return None
    return tuple(before[i] if d == 0 else None if d < 0 else int(d) for i, d in enumerate(dims))


def quantizer_pair(
    builder: Builder, value: ir.Value, parameters: Sequence[ir.Value | None], inner: str = ""
) -> list[ir.Node]:
    """QuantizeLinear and DequantizeLinear of `value`.

    Args:
        parameters: scale and zero point.
        inner: what their names have behind that of the layer.
    """
    pair, path = [], (value.name or "").rsplit("/", 1)[0]
    for op_type in ("QuantizeLinear", "DequantizeLinear"):
        name = builder.unique("/".join(part for part in (path, inner, op_type) if part))
        pair.append(ir.node(op_type, [value, *parameters], outputs=[ir.Value(name=name)], name=name))
        value = pair[-1].outputs[0]
    return pair


def bias_in_steps(builder: Builder, node: ir.Node, bias: np.ndarray, scale: np.ndarray) -> ir.Node:
    """A DequantizeLinear of the bias of `node` as integers of 32 bits, in steps of `scale`, one for each channel."""
    limits = np.iinfo(np.int32)
    rounded = np.clip(np.round(bias.astype(np.float64) / scale), limits.min, limits.max).astype(np.int32)
    prefix = f"{(node.name or '').rsplit('/', 1)[0]}/bias"
    arguments = [
        builder.initializer(f"{prefix}_integers", rounded),
        builder.initializer(f"{prefix}_scale", scale),
        builder.initializer(f"{prefix}_zero_point", np.zeros_like(rounded)),
    ]
    name = builder.unique(f"{prefix}/DequantizeLinear")
    return ir.node("DequantizeLinear", arguments, {"axis": 0}, outputs=[ir.Value(name=name)], name=name)
