"""For ONNX Runtime: keep the integers before a layer with float weights apart from it.

    DQ ── ConvTranspose ── Q    →    DQ ── Max(lowest float) ── ConvTranspose ── Q

Without the Max, ONNX Runtime quantizes the weights itself (see `float_weights`). The pass runs for files without a
target, too: they may run in ONNX Runtime.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max
from tensorflow_quantization.onnx_graph.float_weights import float_weights


def weight_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = list(float_weights(builder.graph))
    for node in found:
        value = node.inputs[0]
        assert value is not None
        node.replace_input_with(0, insert_max(builder, value, before=node))
    return len(found)
