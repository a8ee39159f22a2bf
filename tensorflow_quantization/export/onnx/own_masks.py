"""Masks of layers with a `compute_mask` of their own."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.masking import MaskOf
from tensorflow_quantization.model.tracing import reason_of, trace_layer


@emitter(MaskOf, layout="any")
def mask_of(e: Emission, operation: MaskOf, output: Value, inputs: Any) -> Value:
    return output


def own_mask(e: Emission, layer: Any, inputs: Any, masks: Any) -> Value | None:
    """The mask of the only output of a layer with a `compute_mask` of its own; `None`: it has none.

    Args:
        e: appends the nodes.
        layer: the layer.
        inputs: the structure of values and other objects that the layer reads.
        masks: the same structure with the masks of these values; `None` where there is none.

    Raises:
        NotExpressibleError: Keras cannot trace `compute_mask`.
    """
    values: list[Value] = []
    symbols: list[keras.KerasTensor] = []

    def symbol(x: Any) -> Any:
        if not isinstance(x, Value):
            return x
        values.append(x)
        symbols.append(keras.Input(batch_shape=x.shape, dtype=x.dtype))
        return symbols[-1]

    tensors, before = tree.map_structure(symbol, inputs), tree.map_structure(symbol, masks)
    try:
        mask = layer.compute_mask(tensors, before)
        if mask is None or any(mask is x for x in symbols):
            return None if mask is None else next(v for v, x in zip(values, symbols, strict=True) if x is mask)
        graph = trace_layer(layer, lambda: layer.compute_mask(tensors, before), symbols, "mask/").flatten()
    except Exception as error:
        raise NotExpressibleError(
            f"has a compute_mask that Keras cannot trace: {reason_of(error)}; write it with keras.ops"
        ) from error
    found = e.emit_graph(graph, *values)
    if len(found) != 1:
        raise NotExpressibleError("computes several masks")
    return found[0]
