"""For OpenVINO: keep factors before a normalization, whose epsilon makes them matter.

    Mul(0.1) ── LayerNormalization    →    Mul(0.1) ── Max(lowest float) ── LayerNormalization

Without the Max, OpenVINO 2026.4 drops the factor (see `scaled_normalizations`). The pass runs for files without a
target, too: they may run in OpenVINO.
"""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import operand
from tensorflow_quantization.onnx_graph.scaled_normalizations import scaled_normalizations


def normalization_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    changed = 0
    for normalization, _ in scaled_normalizations(builder.graph):
        value = operand(normalization, 0)
        apart = builder.insert("Max", [value, np.finfo(np.float32).min], before=normalization, like=value)
        normalization.replace_input_with(0, apart)
        changed += 1
    return changed
