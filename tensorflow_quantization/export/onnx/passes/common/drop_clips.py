"""Remove a Clip before a quantizer where its input never goes below the limit.

    x ≥ 0 ── Clip(low ≤ 0) ── Q    →    x ── Q

Narrow integers, -127 to 127, need the Clip, because QuantizeLinear saturates at -128; but not after a ReLU.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._nonnegative import find_nonnegative
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import chains, constant, name_of, operand

logger = logging.getLogger(__name__)


def drop_clips(builder: Builder) -> int:
    """Returns how many were removed."""
    nonnegative, dropped = find_nonnegative(builder.graph), 0
    for clip, _ in chains(builder.graph, "Clip", "QuantizeLinear"):
        source = operand(clip, 0)
        reason = _why_not(clip, source in nonnegative)
        if source is None or reason:
            logger.debug("%s stays: %s", name_of(clip), reason)
            continue
        replace(clip.outputs[0], source)
        dropped += 1
    return dropped


def _why_not(clip: ir.Node, nonnegative: bool) -> str | None:
    """Why a Clip has an effect; `None`: it has none."""
    low = constant(operand(clip, 1))
    if operand(clip, 2) is not None:
        return "it limits from above too"
    if low is None or low > 0:
        return "its lower limit is above zero, or no constant"
    return None if nonnegative else "its input may be negative"
