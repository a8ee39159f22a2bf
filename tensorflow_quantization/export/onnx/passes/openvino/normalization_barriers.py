"""For OpenVINO: keep factors before a normalization, whose epsilon makes them matter.

    Mul(0.1) ── LayerNormalization        →    Mul(0.1) ── Max(lowest float) ── LayerNormalization
    DQ ── Conv ── InstanceNormalization   →    DQ ── Conv ── Max(lowest float) ── InstanceNormalization

Without the Max, OpenVINO 2026.4 drops the factor (see `scaled_normalizations`). The pass runs for files without a
target, too: they may run in OpenVINO.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max
from tensorflow_quantization.onnx_graph.queries import producer
from tensorflow_quantization.onnx_graph.scaled_normalizations import scaled_normalizations


def normalization_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    apart: dict[ir.Value, ir.Value] = {}
    for normalization, _ in list(scaled_normalizations(builder.graph)):
        value = normalization.inputs[0]
        assert value is not None
        if value not in apart:
            first = next(node for node in builder.graph if value in node.inputs)
            apart[value] = insert_max(builder, value, before=first)
        normalization.replace_input_with(0, apart[value])
        mean = producer(normalization.inputs[1], "ReduceMean")
        if mean is not None:  # of a normalization of several operators
            mean.replace_input_with(0, apart[value])
    return len(apart)
