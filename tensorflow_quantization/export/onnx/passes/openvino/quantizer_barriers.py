"""For OpenVINO: keep a reduction apart from the quantizer of its result.

    ReduceMean(keepdims=0) ── Q    →    ReduceMean(keepdims=1) ── Squeeze ── Q
    ReduceMax(keepdims=1) ── Q     →    ReduceMax(keepdims=1) ── Max(lowest float) ── Q

Else OpenVINO 2026.4 computes both in one operator, some of them wrong (see `quantized_reductions`). The pass runs for
files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max, replace_after
from tensorflow_quantization.onnx_graph.channelwise_reductions import keeps_axes
from tensorflow_quantization.onnx_graph.quantized_reductions import quantized_reductions
from tensorflow_quantization.onnx_graph.queries import attribute, constant, operand


def quantizer_barriers(builder: Builder) -> int:
    """Insert what keeps them apart, and return the number of reductions that got one."""
    changed = 0
    for reduction, _ in quantized_reductions(builder.graph):
        (value,) = reduction.outputs
        if keeps_axes(reduction):
            apart = insert_max(builder, value, after=reduction)
        else:
            reduction.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)
            apart = builder.insert("Squeeze", [value, *_axes(reduction)], after=reduction, like=value)
            value.shape = None
        replace_after(value, apart)
        changed += 1
    return changed


def _axes(reduction: ir.Node) -> list[np.ndarray]:
    """The axes of a reduction as the input of a Squeeze; none: all."""
    axes = attribute(reduction, "axes")
    axes = constant(operand(reduction, 1)) if axes is None else axes
    return [] if axes is None else [np.asarray(axes, np.int64)]
