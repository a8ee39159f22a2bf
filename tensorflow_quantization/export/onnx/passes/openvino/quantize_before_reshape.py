"""For OpenVINO: move a quantizer before a Reshape, so that the kernel before the Reshape writes integers.

    GlobalAveragePool ── Reshape ── Q ── DQ    →    GlobalAveragePool ── Q ── DQ ── Reshape

OpenVINO fuses a quantizer into the kernel that computes its input, but not through a Reshape: the kernel of a global
pooling would write floats. A quantizer that repeats the one before the Reshape is removed: OpenVINO 2026.4 crashes when
it loads a Concat with two quantizers in a row after it.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import quantize_before, replace
from tensorflow_quantization.onnx_graph.quantization import same_parameters
from tensorflow_quantization.onnx_graph.queries import (
    chains,
    constant,
    is_private,
    name_of,
    only_reader,
    operand,
    producer,
)

logger = logging.getLogger(__name__)


def quantize_before_reshape(builder: Builder) -> int:
    """Move quantizers before Reshapes, and return their number."""
    changed = 0
    for reshape, quantize in chains(builder.graph, "Reshape", "QuantizeLinear"):
        source, dequantize = operand(reshape, 0), only_reader(quantize.outputs[0], "DequantizeLinear")
        reason = _why_not(reshape, source, dequantize)
        if source is None or dequantize is None or reason:
            logger.debug("%s stays after %s: %s", name_of(quantize), name_of(reshape), reason)
            continue
        before = producer(source, "DequantizeLinear")
        if before is not None and same_parameters(before, quantize):
            replace(dequantize.outputs[0], reshape.outputs[0])
        else:
            quantize_before(builder.graph, reshape, quantize, dequantize)
        changed += 1
    return changed


def _why_not(reshape: ir.Node, source: ir.Value | None, dequantize: ir.Node | None) -> str | None:
    if producer(source) is None:
        return "the Reshape reads a model input"
    if constant(operand(reshape, 1)) is None:
        return "the Reshape has sizes known only at run time"
    if not is_private(reshape.outputs[0]):
        return "something else reads the output of the Reshape"
    return "the integers have readers other than one DequantizeLinear" if dequantize is None else None
