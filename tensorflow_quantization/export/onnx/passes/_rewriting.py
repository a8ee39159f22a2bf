"""What several passes do to a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import layer_of


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of `old`, and the graph's outputs, read `new`."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def insert_pair(
    builder: Builder,
    value: ir.Value,
    parameters: Sequence[ir.Value | None],
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
    inner: str = "",
) -> tuple[ir.Value, ir.Value]:
    """Quantize and dequantize `value`.

    Args:
        builder: of the graph.
        value: of the graph.
        parameters: scale and zero point.
        before, after: the node next to the pair, as one of the two.
        inner: what the names of the pair have after the layer's name.

    Returns:
        The integers, and the numbers that they stand for.
    """
    path = "".join(f"{part}/" for part in (layer_of(value), inner) if part)
    integers = builder.insert(
        "QuantizeLinear", [value, *parameters], before=before, after=after, name=f"{path}QuantizeLinear"
    )
    floats = builder.insert(
        "DequantizeLinear", [integers, *parameters], after=integers.producer(), name=f"{path}DequantizeLinear"
    )
    return integers, floats


def insert_integer_bias(builder: Builder, node: ir.Node, bias: np.ndarray, scale: np.ndarray) -> ir.Value:
    """The bias of `node` as integers of 32 bits, dequantized before `node`.

    Args:
        builder: of the graph.
        node: adds the bias.
        bias: one number for each channel.
        scale: the steps of the integers, one for each channel.
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
