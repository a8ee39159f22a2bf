"""Remove a Clip before a quantizer if the input of the Clip is never below its limit.

    x ≥ 0 ── Clip(low ≤ 0) ── Q    →    x ── Q

A quantizer with the narrow range -127 to 127 needs a Clip, because QuantizeLinear saturates at -128. After a ReLU, the
Clip has no effect.
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
    """Remove Clips that have no effect, and return their number."""
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
    """Why the Clip may have an effect; `None` if it has no effect."""
    low = constant(operand(clip, 1))
    if operand(clip, 2) is not None:
        return "it has an upper limit, too"
    if low is None or low > 0:
        return "its lower limit is positive or not constant"
    return None if nonnegative else "its input may be negative"
