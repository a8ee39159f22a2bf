"""For OpenVINO: keep parameters of channels apart from a reduction of sequences (batch, channels, steps).

    GlobalAveragePool ── Mul            →    GlobalAveragePool ── MaxPool 1x1 ── Mul
    ReduceMax(keepdims=0) ── Mul        →    ReduceMax(keepdims=1) ── MaxPool 1x1 ── Squeeze ── Mul

Without the MaxPool, OpenVINO 2026.4 takes the batch for the channels (see `channelwise_reductions`). The pass runs for
files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_barrier, replace_after
from tensorflow_quantization.onnx_graph.channelwise_reductions import channelwise_reductions, keeps_axes, reduced_axes


def reduction_barriers(builder: Builder) -> int:
    """Insert the MaxPools, and return their number."""
    found = [reduction for reduction, _ in channelwise_reductions(builder.graph)]
    for reduction in found:
        pooled = insert_barrier(builder, reduction.outputs[0], rank=1)
        if not keeps_axes(reduction):
            axes = np.asarray(reduced_axes(reduction, 3), np.int64)
            replace_after(pooled, builder.insert("Squeeze", [pooled, axes], after=pooled.producer(), like=pooled))
            reduction.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)
            reduction.outputs[0].shape = pooled.shape = None
    return len(found)
