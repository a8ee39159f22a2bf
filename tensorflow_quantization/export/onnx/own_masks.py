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


def own_masks(e: Emission, layer: Any, inputs: Any, masks: Any) -> list[Value | None]:
    """The masks of the outputs of a layer with a `compute_mask` of its own; `None` for an output without one.

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

    def compute() -> list[Any]:
        return tree.flatten(layer.compute_mask(tensors, before))

    def emitted(index: int, mask: Any) -> Value | None:
        if mask is None or any(mask is x for x in symbols):
            return next((value for value, x in zip(values, symbols, strict=True) if x is mask), None)
        graph = trace_layer(layer, lambda: compute()[index], symbols, "mask/").flatten()
        return e.emit_graph(graph, *values)[0]

    try:
        return [emitted(index, mask) for index, mask in enumerate(compute())]
    except Exception as error:
        raise NotExpressibleError(
            f"has a compute_mask that Keras cannot trace: {reason_of(error)}; write it with keras.ops"
        ) from error
