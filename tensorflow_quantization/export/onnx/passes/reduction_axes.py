"""Gives reductions their axes as an input, as opset 18 and newer want it; until then they are an attribute."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import ints

_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp"})


def reduction_axes(builder: Builder) -> None:
    if builder.opset < 18:
        return
    for node in builder.graph:
        axes = ints(node, "axes") if node.op_type in _REDUCTIONS else None
        if axes is not None:
            del node.attributes["axes"]
            node.resize_inputs(2)
            node.replace_input_with(1, builder.constant(np.asarray(axes, np.int64)))
