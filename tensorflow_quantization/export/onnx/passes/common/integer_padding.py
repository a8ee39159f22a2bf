"""For ONNX Runtime and OpenVINO: pad integers with the zero point instead of dequantized values with zero.

    q ── DQ ── Pad(0) ── Q ── y    →    q ── Pad(zero point) ── y

Both run a Pad between DequantizeLinear and QuantizeLinear in float, unless the zero point is 0. A Pad of integers runs
in integers.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.quantization import same_parameters
from tensorflow_quantization.onnx_graph.queries import chains, is_private, moves_only, name_of, operand

logger = logging.getLogger(__name__)


def integer_padding(builder: Builder) -> int:
    """Move Pads to the integers, and return their number."""
    changed = 0
    for dequantize, pad, quantize in chains(builder.graph, "DequantizeLinear", "Pad", "QuantizeLinear"):
        zero_point, reason = operand(quantize, 2), _why_not(dequantize, pad, quantize)
        if zero_point is None or reason:
            logger.debug("%s stays in float: %s", name_of(pad), reason)
            continue
        pad.resize_inputs(max(3, len(pad.inputs)))
        pad.replace_input_with(0, operand(dequantize, 0))
        pad.replace_input_with(2, zero_point)
        pad.outputs[0].type = zero_point.type
        (integers,) = quantize.outputs
        replace(integers, pad.outputs[0])
        builder.graph.remove(quantize, safe=True)
        pad.outputs[0].name = integers.name  # verification reads the integers by this name
        changed += 1
    return changed


def _why_not(dequantize: ir.Node, pad: ir.Node, quantize: ir.Node) -> str | None:
    if not moves_only(pad):
        return "it does not pad with zero"
    if not is_private(pad.outputs[0]):
        return "something else reads its output"
    return None if same_parameters(dequantize, quantize) else "the quantizers before and after it differ"
