"""For OpenVINO: keep reductions and Pads apart from the integers that their input was dequantized from.

    DQ ── ReduceMean    →    DQ ── Max(lowest float) ── ReduceMean

Without the Max, OpenVINO 2026.4 computes some of them from the integers, and wrong (see `dequantized_inputs`). The
pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_between
from tensorflow_quantization.onnx_graph.dequantized_inputs import dequantized_inputs


def dequantizer_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [node for node, _ in dequantized_inputs(list(builder.graph))]
    for node in found:
        insert_max_between(builder, node)
    return len(found)
