"""Weights that the code of a custom layer reads, see `model.own_weights`."""

from __future__ import annotations

from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.own_weights import OwnWeight


@emitter(OwnWeight, layout="any")
def own_weight(e: Emission, layer: OwnWeight, x: Value) -> Value:
    array = to_numpy(layer.value, layer.compute_dtype)
    return Value(e.builder.shared_initializer(e.path, array), layer.shape, layer.compute_dtype)
