"""For OpenVINO: keep the limits of a dequantized tensor from the integers.

    DQ ── Clip(0, 6)    →    DQ ── Max(lowest float) ── Clip(0, 6)

Without the Max, OpenVINO 2026.4 rounds the limits to integers (see `rounded_limits`). The pass runs for files without a
target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_between
from tensorflow_quantization.onnx_graph.rounded_limits import rounded_limits


def limit_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [limiting for limiting, _ in rounded_limits(builder.graph)]
    for limiting in found:
        insert_max_between(builder, limiting)
    return len(found)
