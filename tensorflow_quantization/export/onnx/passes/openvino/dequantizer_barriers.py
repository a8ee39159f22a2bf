"""For OpenVINO: keep a reduction apart from the integers that its input was dequantized from.

    DQ ── ReduceMean    →    DQ ── Max(lowest float) ── ReduceMean

Without the Max, OpenVINO 2026.4 computes some reductions of the integers, and wrong (see `dequantized_reductions`). The
pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_between
from tensorflow_quantization.onnx_graph.dequantized_reductions import dequantized_reductions


def dequantizer_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [reduction for reduction, _ in dequantized_reductions(list(builder.graph))]
    for reduction in found:
        insert_max_between(builder, reduction)
    return len(found)
