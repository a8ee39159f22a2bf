"""For OpenVINO: keep the readers of a quantized convolution without a bias apart from it.

    DQ ── Conv ── Relu …  Add    →    DQ ── Conv ── Max(lowest float) ── Relu …  Add

Without the Max, OpenVINO 2026.4 gives one of several readers the sum of the integers, without their scales (see
`shared_convolutions`). The pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max, replace_after
from tensorflow_quantization.onnx_graph.shared_convolutions import shared_convolutions


def convolution_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [convolution for convolution, _ in shared_convolutions(builder.graph)]
    for convolution in found:
        (value,) = convolution.outputs
        replace_after(value, insert_max(builder, value, after=convolution))
    return len(found)
