"""For OpenVINO: keep limits and averages of a dequantized tensor from its integers.

    DQ ── Clip(0, 6)    →    DQ ── Max(lowest float) ── Clip(0, 6)

Without the Max, OpenVINO 2026.4 rounds them to integers (see `rounded_results`).
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_between
from tensorflow_quantization.onnx_graph.rounded_results import rounded_results


def rounding_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [node for node, _ in rounded_results(builder.graph)]
    for node in found:
        insert_max_between(builder, node)
    return len(found)
