"""For OpenVINO: keep a transposed convolution with strides beyond its kernel apart from the quantizer after it.

    ConvTranspose ── Q    →    ConvTranspose ── Max(lowest float) ── Q

Without the Max, OpenVINO 2026.4 adds no bias to the points that no input reaches (see `uncovered_points`). The pass
runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_after
from tensorflow_quantization.onnx_graph.uncovered_points import uncovered_points


def gap_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [convolution for convolution, _ in uncovered_points(builder.graph)]
    for convolution in found:
        insert_max_after(builder, convolution)
    return len(found)
