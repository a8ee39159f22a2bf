"""Local and global pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masking import boolean, unsqueeze
from tensorflow_quantization.export.onnx.emitters._windows import repeated, unless_ones, window_attributes
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value


def _pool(e: Emission, layer, x: Value, op_type: str) -> Value:
    rank = x.rank - 2
    size, strides = repeated(layer.pool_size, rank), repeated(layer.strides, rank)
    padding = window_attributes(layer.padding, x.stored_shape[2:], size, strides, [1] * rank)
    return e.output(e.op(op_type, x, kernel_shape=size, strides=unless_ones(strides), **padding), x)


@emitter("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", layout="channels_first")
def max_pooling(e: Emission, layer, x: Value) -> Value:
    return _pool(e, layer, x, "MaxPool")


@emitter("AveragePooling1D", "AveragePooling2D", "AveragePooling3D", layout="channels_first")
def average_pooling(e: Emission, layer, x: Value) -> Value:
    return _pool(e, layer, x, "AveragePool")  # Keras and ONNX, by default, leave padding out of the mean


def _pool_all(e: Emission, layer, x: Value, op_type: str) -> Value:
    y = e.op(op_type, x)
    # Note the shape (batch, channels, 1, ...), so that a pass can remove a Reshape to this shape.
    e.builder.annotate(Value(y, (*x.stored_shape[:2], *[1] * (x.rank - 2))))
    if layer.keepdims:
        return e.output(y, x)
    return e.output(e.reshape(y, [0, -1]))


@emitter("GlobalAveragePooling2D", "GlobalAveragePooling3D", layout="channels_first")
def global_average(e: Emission, layer, x: Value) -> Value:
    return _pool_all(e, layer, x, "GlobalAveragePool")


@emitter("GlobalAveragePooling1D", layout="channels_first")
def global_average_1d(e: Emission, layer, x: Value, mask: Value | None = None) -> Value:
    if mask is None:
        return _pool_all(e, layer, x, "GlobalAveragePool")
    seen = unsqueeze(e, boolean(e, mask), [1])  # broadcast over the channels, which are stored before the steps
    steps, keep = np.asarray([2], np.int64), int(layer.keepdims)
    total = e.op("ReduceSum", e.op("Where", seen, x, 0.0), steps, keepdims=keep)
    count = e.op("ReduceSum", e.op("Cast", seen, to=ir.DataType.FLOAT.value), steps, keepdims=keep)
    return e.output(e.op("Div", total, count), x)


@emitter("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", layout="channels_first")
def global_max(e: Emission, layer, x: Value) -> Value:
    return _pool_all(e, layer, x, "GlobalMaxPool")
