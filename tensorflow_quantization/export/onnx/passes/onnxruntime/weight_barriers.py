"""For ONNX Runtime: keep integers apart from the float weights, or weights from the float inputs, that they multiply.

    DQ ── ConvTranspose ── Q    →    DQ ── Max(lowest float) ── ConvTranspose ── Q
    MatMul(DQ(weights))         →    MatMul(Max(DQ(weights), lowest float))

Without the Max, ONNX Runtime quantizes the floats itself (see `onnx_graph.float_weights`). The pass runs for files
without a target, too: they may run in ONNX Runtime.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max, insert_max_after
from tensorflow_quantization.onnx_graph.float_weights import float_weights, weights_of_float_inputs


def weight_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found, weights = list(float_weights(builder.graph)), list(dict.fromkeys(weights_of_float_inputs(builder.graph)))
    for dequantize in weights:
        insert_max_after(builder, dequantize)
    for node in found:
        value = node.inputs[0]
        assert value is not None
        node.replace_input_with(0, insert_max(builder, value, before=node))
    return len(found) + len(weights)
