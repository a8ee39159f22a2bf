"""For OpenVINO: keep the readers of a quantized convolution without a bias apart from it.

    DQ ── Conv ── Relu …  Add    →    DQ ── Conv ── MaxPool 1x1 ── Relu …  Add

Without the MaxPool, OpenVINO 2026.4 gives one of several readers the sum of the integers, without their scales (see
`onnx_graph.shared_convolutions`). The pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_barrier, replace
from tensorflow_quantization.onnx_graph import shared_convolutions as found
from tensorflow_quantization.onnx_graph.queries import attribute


def shared_convolutions(builder: Builder) -> int:
    """Insert the MaxPools, and return their number."""
    convolutions = [convolution for convolution, _ in found.shared_convolutions(list(builder.graph))]
    for convolution in convolutions:
        (output,) = convolution.outputs
        apart = insert_barrier(builder, output, len(attribute(convolution, "kernel_shape")))
        if output.is_graph_output():
            replace(output, apart)
            apart.producer().replace_input_with(0, output)
    return len(convolutions)
