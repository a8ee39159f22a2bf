"""For OpenVINO: keep an activation that falls and rises apart from the MaxPool before it.

    Conv ── MaxPool ── silu    →    Conv ── MaxPool ── MaxPool 1x1 ── silu

Without the second MaxPool, OpenVINO 2026.4 applies the activation before the pooling (see `pooled_activations`). The
pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_barrier
from tensorflow_quantization.onnx_graph.pooled_activations import pooled_activations
from tensorflow_quantization.onnx_graph.queries import attribute


def pool_barriers(builder: Builder) -> int:
    """Insert the MaxPools, and return their number."""
    changed = 0
    for pool, _ in pooled_activations(list(builder.graph)):
        insert_barrier(builder, pool.outputs[0], len(attribute(pool, "kernel_shape")))
        changed += 1
    return changed
