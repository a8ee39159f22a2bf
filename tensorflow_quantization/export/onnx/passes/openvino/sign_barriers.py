"""For OpenVINO: keep a negative factor apart from the activation of a convolution before it.

    Conv ── Relu ── Neg    →    Conv ── Relu ── Max(lowest float) ── Neg

Without the Max, OpenVINO 2026.4 applies the factor before the activation (see `negated_activations`). The pass runs for
files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_after
from tensorflow_quantization.onnx_graph.negated_activations import negated_activations


def sign_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [activation for activation, _ in negated_activations(builder.graph)]
    for activation in found:
        insert_max_after(builder, activation)
    return len(found)
