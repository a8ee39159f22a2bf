"""For ONNX Runtime: quantize int8 activations with zero point 0 to uint8, with the same values. It fuses uint8.

    x ── Q(int8, 0) ── DQ        →    x ── Q(uint8, 128) ── DQ
    x ≥ 0 ── Q(int8, 0) ── DQ    →    x ── Q(uint8, 0) ── Clip(0, 127) ── DQ

If the activation is never negative, the zero point stays 0, and a Clip of the integers at 127 keeps the upper limit.
Otherwise the zero point becomes 128.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import OFFSET
from tensorflow_quantization.export.onnx.passes._nonnegative import find_nonnegative
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import constant, name_of, operand, readers

logger = logging.getLogger(__name__)


def unsigned_activations(builder: Builder) -> int:
    """Change int8 quantizers to uint8, and return their number."""
    nonnegative, changed = find_nonnegative(builder.graph), 0
    for quantize in [node for node in builder.graph if node.op_type == "QuantizeLinear"]:
        zero_point = constant(operand(quantize, 2))
        if zero_point is None or zero_point.dtype != np.int8:
            continue
        reason = _why_not(quantize, zero_point)
        if reason:
            logger.debug("%s stays int8: %s", name_of(quantize), reason)
            continue
        _make_unsigned(builder, quantize, operand(quantize, 0) in nonnegative)
        changed += 1
    return changed


def _why_not(quantize: ir.Node, zero_point: np.ndarray) -> str | None:
    (integers,) = quantize.outputs
    if zero_point.ndim or zero_point != 0:
        return "its zero point is not 0"
    only_dequantized = all(reader.op_type == "DequantizeLinear" for reader in readers(integers))
    if integers.is_graph_output() or not only_dequantized:
        return "not only DequantizeLinear reads its integers"
    return None


def _make_unsigned(builder: Builder, quantize: ir.Node, nonnegative: bool) -> None:
    (integers,) = quantize.outputs
    following = readers(integers)
    offset = 0 if nonnegative else 128
    zero_point = builder.constant(np.uint8(offset))
    clips = nonnegative and not _repeats(quantize)
    quantize.replace_input_with(2, zero_point)
    integers.type = None
    integers.meta[OFFSET] = offset
    if clips:
        limits = [np.uint8(0), np.uint8(127)]
        integers = builder.insert("Clip", [integers, *limits], after=quantize, name=f"{quantize.name}/Clip")
    for reader in following:
        reader.replace_input_with(0, integers)
        reader.replace_input_with(2, zero_point)


def _repeats(quantize: ir.Node) -> bool:
    """Whether the input of `quantize` comes from integers with the same scale, so that no value exceeds the limit."""
    source = source_of(operand(quantize, 0))
    return source is not None and constant(operand(source, 1)) == constant(operand(quantize, 1))
