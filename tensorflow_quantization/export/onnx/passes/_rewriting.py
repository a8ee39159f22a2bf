"""Rewrites that several passes share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.affine import data_of
from tensorflow_quantization.onnx_graph.queries import layer_of


def replace(old: ir.Value, new: ir.Value) -> None:
    """Replace `old` by `new` in all nodes that read it and in the outputs of the graph."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def insert_barrier(builder: Builder, value: ir.Value, rank: int, *, for_readers: bool = True) -> ir.Value:
    """Insert a MaxPool of 1x1, over which a runtime fuses nothing, after the node that computes a value.

    Args:
        builder: the builder of the graph.
        value: the output of a node.
        rank: the number of axes of the pool.
        for_readers: whether all that reads `value`, the outputs of the graph, too, reads the MaxPool instead.

    Returns:
        The output of the MaxPool.
    """
    apart = builder.insert("MaxPool", [value], {"kernel_shape": [1] * rank}, after=value.producer(), like=value)
    if for_readers:
        replace_after(value, apart)
    return apart


def insert_max(
    builder: Builder, value: ir.Value, *, before: ir.Node | None = None, after: ir.Node | None = None
) -> ir.Value:
    """Insert a Max with the lowest float, which changes nothing, as a barrier for tensors of any rank.

    Before a Min, it is a Min with the greatest float: OpenVINO computes a Max and a Min in one operator.

    Args:
        builder: the builder of the graph.
        value: the tensor.
        before: the node before which to insert it. Pass either this or `after`.
        after: the node after which to insert it.

    Returns:
        The output of the Max. Nothing reads it yet.
    """
    limits = np.finfo(np.float32)
    op_type, limit = ("Min", limits.max) if before is not None and before.op_type == "Min" else ("Max", limits.min)
    return builder.insert(op_type, [value, limit], before=before, after=after, like=value)


def insert_max_between(builder: Builder, node: ir.Node) -> None:
    """Insert a Max with the lowest float between an operator with constants and the tensor that it reads."""
    value = data_of(node)
    assert value is not None
    node.replace_input_with(list(node.inputs).index(value), insert_max(builder, value, before=node))


def insert_max_after(builder: Builder, node: ir.Node) -> None:
    """Insert a Max with the lowest float between a node with one output and all that reads it."""
    (value,) = node.outputs
    replace_after(value, insert_max(builder, value, after=node))


def replace_after(value: ir.Value, new: ir.Value) -> None:
    """Replace `value` by `new`, as `replace` does, but for the node that computes `new` from it."""
    replace(value, new)
    node = new.producer()
    assert node is not None
    node.replace_input_with(0, value)


def insert_pair(
    builder: Builder,
    value: ir.Value,
    parameters: Sequence[ir.Value | None],
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
    inner: str = "",
) -> tuple[ir.Value, ir.Value]:
    """Insert a QuantizeLinear and a DequantizeLinear that read `value`.

    Args:
        builder: the builder of the graph.
        value: the tensor to quantize.
        parameters: scale and zero point.
        before: the node before which to insert the pair. Pass either this or `after`.
        after: the node after which to insert the pair.
        inner: the part of the names of the pair that follows the layer's name.

    Returns:
        The integers, and the dequantized tensor. Nothing reads the latter yet.
    """
    path = "".join(f"{part}/" for part in (layer_of(value), inner) if part)
    integers = builder.insert(
        "QuantizeLinear", [value, *parameters], before=before, after=after, name=f"{path}QuantizeLinear"
    )
    floats = builder.insert(
        "DequantizeLinear", [integers, *parameters], after=integers.producer(), name=f"{path}DequantizeLinear"
    )
    return integers, floats


def quantize_before(graph: ir.Graph, node: ir.Node, quantize: ir.Node, dequantize: ir.Node) -> None:
    """Move a node that only moves the values of its first input after the Q/DQ pair that alone reads it."""
    source, (integers,), (floats,) = node.inputs[0], quantize.outputs, dequantize.outputs
    assert source is not None
    quantize.replace_input_with(0, source)
    replace(floats, node.outputs[0])
    node.replace_input_with(0, floats)
    graph.remove(node)
    graph.insert_after(dequantize, node)
    # A shape without a type would be dropped from the file, with a warning.
    integers.shape = None
    if source.shape is not None and source.type is not None:
        floats.shape, floats.type = source.shape, source.type
    else:
        floats.shape = None


def insert_integer_bias(builder: Builder, node: ir.Node, bias: np.ndarray, scale: np.ndarray) -> ir.Value:
    """Insert the bias of `node` as int32, with a DequantizeLinear before `node`.

    Args:
        builder: the builder of the graph.
        node: the node that adds the bias.
        bias: the float bias, of shape (channels,).
        scale: the scales of the integers, of shape (channels,).

    Returns:
        The dequantized bias. `node` does not read it yet.
    """
    limits = np.iinfo(np.int32)
    integers = np.clip(np.round(bias.astype(np.float64) / scale), limits.min, limits.max).astype(np.int32)
    prefix = f"{layer_of(node)}/bias"
    constants = [
        builder.initializer(f"{prefix}_integers", integers),
        builder.initializer(f"{prefix}_scale", scale),
        builder.initializer(f"{prefix}_zero_point", np.zeros_like(integers)),
    ]
    return builder.insert("DequantizeLinear", constants, {"axis": 0}, before=node, name=f"{prefix}/DequantizeLinear")
