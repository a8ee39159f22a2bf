"""Merge nested Concats along the same axis into one Concat, which copies its inputs only once.

a ─┐
b ─┴ Concat ─┐           a ─┐
          c ─┴ Concat  →  b ─┼ Concat
                          c ─┘
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import attribute, is_private, name_of, producer

logger = logging.getLogger(__name__)


def merge_concats(builder: Builder) -> int:
    """Merge nested Concats, and return the number of removed Concats."""
    merged = 0
    for node in [node for node in builder.graph if node.op_type == "Concat"]:
        parts = [_inner(value, node) for value in node.inputs]
        inputs = [
            x for value, inner in zip(node.inputs, parts, strict=True) for x in (inner.inputs if inner else [value])
        ]
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)
        found = [inner for inner in parts if inner is not None]
        builder.graph.remove(found, safe=True)
        merged += len(found)
    return merged


def _inner(value: ir.Value | None, outer: ir.Node) -> ir.Node | None:
    """The Concat that computes `value`, if `outer` is its only reader and has the same axis."""
    inner = producer(value, "Concat")
    if inner is None or value is None:
        return None
    reason = _why_not(inner, outer)
    if reason:
        logger.debug("%s is not merged into %s: %s", name_of(inner), name_of(outer), reason)
        return None
    return inner


def _why_not(inner: ir.Node, outer: ir.Node) -> str | None:
    if not is_private(inner.outputs[0]):
        return "something else reads it"
    return None if attribute(inner, "axis") == attribute(outer, "axis") else "it joins another axis"
