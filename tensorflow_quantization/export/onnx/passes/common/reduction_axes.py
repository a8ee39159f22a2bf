"""Move the axes of reductions from an attribute to an input, as opset 18 and newer require.

x ── ReduceMean(axes=[1])    →    x ── ReduceMean
                             [1] ──┘
"""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import attribute

_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp"})


def reduction_axes(builder: Builder) -> int:
    """Move the axes of reductions to inputs, and return the number of reductions; 0 for older opsets."""
    if builder.opset < 18:
        return 0
    changed = 0
    for node in builder.graph:
        axes = attribute(node, "axes") if node.op_type in _REDUCTIONS else None
        if axes is not None:
            del node.attributes["axes"]
            node.resize_inputs(2)
            node.replace_input_with(1, builder.constant(np.asarray(axes, np.int64)))
            changed += 1
    return changed
