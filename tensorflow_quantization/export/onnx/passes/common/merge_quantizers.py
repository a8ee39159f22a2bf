"""Merge quantizers of one tensor with the same scale and zero point. Some runtimes fuse only then.

    x ─┬─ Q ── DQ ── a        x ── Q ── DQ ─┬─ a
       └─ Q ── DQ ── b   →                  └─ b

Not for TensorRT, which fuses each pair into its reader: there, a separate pair for each reader fuses more reliably.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import MERGED_INTO
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import constant, name_of, operand

logger = logging.getLogger(__name__)

_MERGED = ("Clip", "QuantizeLinear", "DequantizeLinear")


def merge_quantizers(builder: Builder) -> int:
    """Merge equal Clips and quantizers of the same tensor, and return the number of replaced nodes."""
    known: dict[tuple, ir.Node] = {}
    quantized: dict[ir.Value | None, ir.Node] = {}
    merged = 0
    for node in list(builder.graph):
        if node.op_type not in _MERGED or constant(operand(node, 0)) is not None:
            continue
        constants = [constant(operand(node, i)) for i in (1, 2)]
        if any(c is None and operand(node, i) is not None for i, c in enumerate(constants, start=1)):
            continue
        key = (
            node.op_type,
            operand(node, 0),
            *((c.dtype.str, c.tobytes()) if c is not None else None for c in constants),
        )
        first = known.setdefault(key, node)
        if first is not node:
            replace(node.outputs[0], first.outputs[0])
            node.outputs[0].meta[MERGED_INTO] = first.outputs[0]
            merged += 1
        elif node.op_type == "QuantizeLinear" and quantized.setdefault(operand(node, 0), node) is not node:
            other = quantized[operand(node, 0)]
            logger.debug("%s is not merged into %s: their scales or zero points differ", name_of(node), name_of(other))
    return merged
