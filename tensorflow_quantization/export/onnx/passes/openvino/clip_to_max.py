"""For OpenVINO: replace a Clip with a lower limit before a quantized matrix product by a Max.

    x ── Clip(low) ── Q ── DQ ── MatMul    →    x ── Max(low) ── Q ── DQ ── MatMul

OpenVINO 2026.4 fuses a Clip into the FakeQuantize to which it converts QuantizeLinear. At the input of an integer
MatMul it then uses wrong scales. It does not fuse a Max. The pass runs for files without a target, too: they may run in
OpenVINO.
"""

from __future__ import annotations

import logging

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import chains, name_of, operand

logger = logging.getLogger(__name__)


def clip_to_max(builder: Builder) -> int:
    """Replace Clips by Max, and return their number."""
    changed = 0
    for clip, *_ in chains(builder.graph, "Clip", "QuantizeLinear", "DequantizeLinear", "MatMul"):
        if operand(clip, 1) is None or operand(clip, 2) is not None:
            logger.debug("%s stays: it has an upper limit, too", name_of(clip))
            continue
        limited = builder.insert("Max", clip.inputs[:2], before=clip, like=clip.outputs[0])
        replace(clip.outputs[0], limited)
        changed += 1
    return changed
