"""For OpenVINO: the Clip in front of a quantized matrix product as a Max, where it has one limit.

    x ── Clip(low) ── Q ── DQ ── MatMul    →    x ── Max(low) ── Q ── DQ ── MatMul

OpenVINO (2026.4) takes a Clip into the FakeQuantize that it makes of QuantizeLinear, and for the input of a MatMul in
integers then computes with wrong scales; a Max it leaves alone.
"""

from __future__ import annotations

import logging

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import chains, name_of, operand

logger = logging.getLogger(__name__)


def clip_to_max(builder: Builder) -> int:
    """Returns how many Clips became a Max."""
    changed = 0
    for clip, *_ in chains(builder.graph, "Clip", "QuantizeLinear", "DequantizeLinear", "MatMul"):
        if operand(clip, 1) is None or operand(clip, 2) is not None:
            logger.debug("%s stays: it limits from above too", name_of(clip))
            continue
        limited = builder.insert("Max", clip.inputs[:2], before=clip, like=clip.outputs[0])
        replace(clip.outputs[0], limited)
        changed += 1
    return changed
