"""TimeDistributed and Masking."""

from __future__ import annotations

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.masks import steps_that_count
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.graph import LayerGraph


@emitter("Masking")
def masking(e: Emission, layer, x: Value) -> ir.Value:
    return e.op("Where", steps_that_count(e, layer, x, keepdims=True), x, np.zeros((), x.dtype))


@emitter("TimeDistributed")
def time_distributed(e: Emission, layer, x: Value, mask: Value | None = None) -> Value:
    inner = layer.layer
    if mask is not None and "mask" in inner.call_signature_parameters:
        raise NotExpressibleError(f"passes a mask to its {type(inner).__name__}, which is not exported")
    if None in x.shape[2:]:
        raise NotExpressibleError("has steps of unknown size")
    folded = Value(e.reshape(x, [-1, *(d for d in x.shape[2:] if d is not None)]), (None, *x.shape[2:]), x.dtype)
    spec = keras.KerasTensor((None, *e.outputs[0].shape[2:]), e.outputs[0].dtype)
    if isinstance(inner, keras.Model):
        graph = LayerGraph.trace(inner).flatten()
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise NotExpressibleError("wraps a model with several inputs or outputs")
        (y,) = e.emit_graph(graph, folded)
    else:
        y = e.emit(inner, folded, outputs=[spec], inner=inner.name)
    if isinstance(y, list):
        raise NotExpressibleError(f"wraps a {type(inner).__name__} with several outputs")
    y = e.arrange(y)
    return e.output(_unfold(e, y, x))


def _unfold(e: Emission, y: Value, like: Value) -> ir.Value:
    """`y` with its first axis split into the batch and time axes of `like`."""
    if None in y.shape[1:]:
        raise NotExpressibleError("has an output whose steps have an unknown size")
    sizes = [d for d in y.shape[1:] if d is not None]
    if like.shape[1] is not None:
        return e.reshape(y, [-1, like.shape[1], *sizes])
    leading = e.op("Slice", e.op("Shape", like), *(np.asarray([i], np.int64) for i in (0, 2)))
    return e.op("Reshape", y, e.op("Concat", leading, np.asarray(sizes, np.int64), axis=0))
