"""Joins a concatenation of concatenations along the same axis into one, which copies its inputs only once."""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import integer, is_private, producer


def merge_concats(builder: Builder) -> None:
    for node in list(builder.graph):
        if node.op_type != "Concat":
            continue
        parts = [_inner(value, integer(node, "axis", 0)) for value in node.inputs]
        inputs = [
            x for value, inner in zip(node.inputs, parts, strict=True) for x in (inner.inputs if inner else [value])
        ]
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)
        builder.graph.remove([inner for inner in parts if inner is not None], safe=True)


def _inner(value: ir.Value | None, axis: int) -> ir.Node | None:
    """The concatenation that makes `value`, if it is of the same axis and nothing else reads the value."""
    inner = producer(value, "Concat")
    if inner is None or value is None or not is_private(value) or integer(inner, "axis", 0) != axis:
        return None
    return inner
