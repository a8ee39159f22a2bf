"""Convolutions, pooling, normalization and attention of `keras.ops`, whose weights are tensors or constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.emitters._windows import repeated, unless_ones, window_attributes
from tensorflow_quantization.export.onnx.emitters.convolution import (
    convolve,
    depthwise_kernel_to_onnx,
    kernel_order,
    kernel_to_onnx,
    transpose_convolve,
)
from tensorflow_quantization.export.onnx.emitters.merging import binary
from tensorflow_quantization.export.onnx.emitters.normalization import normalize_layer, normalize_rms
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Order, Value, channels_first, keras_order


def _image_first(operation, values: Sequence[Value]) -> list[Order]:
    """Channels first for the image, Keras' order for kernels."""
    last = (operation.data_format or keras.config.image_data_format()) == "channels_last"
    image, *kernels = values
    return [channels_first(image.rank, -1 if last else 1), *(keras_order(k.rank) for k in kernels)]


def _kernel(e: Emission, kernel: Any, depthwise: bool = False) -> tuple[Any, list[int]]:
    """A kernel in the axis order of ONNX, and its spatial sizes."""
    sizes = [int(d) for d in kernel.shape[:-2]]
    kernel = e.stand_in(kernel)
    if not isinstance(kernel, Value):
        array = to_numpy(kernel, "float32")
        name = getattr(kernel, "name", None) or "kernel"
        array = depthwise_kernel_to_onnx(array) if depthwise else kernel_to_onnx(array)
        return e.stored(name, array), sizes
    rank = kernel.rank
    if not depthwise:
        return e.arrange(kernel, kernel_order(rank)), sizes
    moved = e.arrange(kernel, (rank - 2, rank - 1, *range(rank - 2)))
    return e.reshape(moved, [-1, 1, *sizes]), sizes


def _channels(x: Value) -> int:
    channels = x.stored_shape[1]
    if channels is None:
        raise NotExpressibleError("convolves a tensor with an unknown number of channels")
    return channels


def _image(x: Any) -> Value:
    if not isinstance(x, Value):
        raise NotExpressibleError("convolves a constant")
    return x


@emitter("Conv", layout=_image_first)
def conv(e: Emission, operation, inputs: Any, kernel: Any) -> Value:
    x = e.cast(_image(inputs), "float32")
    weight, sizes = _kernel(e, kernel)
    groups = _channels(x) // int(kernel.shape[-2])
    return e.output(convolve(e, operation, x, weight, None, sizes, groups), x)


@emitter("DepthwiseConv", layout=_image_first)
def depthwise_conv(e: Emission, operation, inputs: Any, kernel: Any) -> Value:
    x = e.cast(_image(inputs), "float32")
    weight, sizes = _kernel(e, kernel, depthwise=True)
    return e.output(convolve(e, operation, x, weight, None, sizes, _channels(x)), x)


@emitter("SeparableConv", layout=_image_first)
def separable_conv(e: Emission, operation, inputs: Any, depthwise_kernel: Any, pointwise_kernel: Any) -> Value:
    x = e.cast(_image(inputs), "float32")
    weight, sizes = _kernel(e, depthwise_kernel, depthwise=True)
    y = convolve(e, operation, x, weight, None, sizes, _channels(x))
    pointwise, ones = _kernel(e, pointwise_kernel)
    return e.output(e.op("Conv", y, pointwise, kernel_shape=ones), x)


@emitter("ConvTranspose", layout=_image_first)
def conv_transpose(e: Emission, operation, inputs: Any, kernel: Any) -> Value:
    x = e.cast(_image(inputs), "float32")
    weight, sizes = _kernel(e, kernel)  # Keras' (space..., out, in) becomes (in, out, space...)
    return e.output(transpose_convolve(e, operation, x, weight, None, sizes), x)


for _op_type, _name in {"MaxPool": "MaxPool", "AveragePool": "AveragePool"}.items():

    @emitter(_name, layout="channels_first")
    def _pool(e: Emission, operation, inputs: Value, op_type: str = _op_type) -> Value:
        rank = inputs.rank - 2
        size = repeated(operation.pool_size, rank)
        strides = size if operation.strides is None else repeated(operation.strides, rank)
        padding = window_attributes(operation.padding, inputs.stored_shape[2:], size, strides, [1] * rank)
        y = e.op(op_type, inputs, kernel_shape=size, strides=unless_ones(strides), **padding)
        return e.output(y, inputs)


def _constant_or_none(x: Any) -> np.ndarray | None:
    if isinstance(x, Value):
        raise NotExpressibleError("normalizes with a scale or shift that is not a constant")
    return None if x is None else to_numpy(x, "float32")


@emitter("LayerNorm", layout="any")
def layer_norm(e: Emission, operation, x: Value, gamma: Any = None, beta: Any = None) -> Value:
    if operation.rms_scaling:
        raise NotExpressibleError("has rms_scaling=True, which Keras deprecates; use rms_normalization")
    axes = np.atleast_1d(operation.axis).tolist()
    epsilon = operation.epsilon or keras.config.epsilon()
    return normalize_layer(e, e.cast(x, "float32"), axes, epsilon, _constant_or_none(gamma), _constant_or_none(beta))


@emitter("RMSNorm", layout="any")
def rms_norm(e: Emission, operation, x: Value, scale: Any = None) -> Value:
    axes = np.atleast_1d(operation.axis).tolist()
    epsilon = operation.epsilon or keras.config.epsilon()
    if isinstance(scale, Value):
        return binary(e, "Mul", normalize_rms(e, x, axes, epsilon, None), scale)
    return normalize_rms(e, x, axes, epsilon, _constant_or_none(scale))


@emitter("BatchNorm", layout="any")
def batch_norm(
    e: Emission, operation, x: Value, mean: Any, variance: Any, offset: Any = None, scale: Any = None
) -> Value:
    x = e.cast(x if x.flattened is None else e.arrange(x), "float32")
    axis = operation.axis % x.rank
    if not any(isinstance(v, Value) for v in (mean, variance, offset, scale)):
        return _folded_batch_norm(e, x, axis, operation.epsilon, mean, variance, offset, scale)

    def along(v: Any) -> Value:
        """A vector with one number per channel, reshaped to broadcast along `axis`."""
        v = e.arrange(e.value(v, "float32"))
        shape = [1] * x.rank
        shape[axis] = -1
        known = tuple(v.shape[0] if i == axis else 1 for i in range(x.rank))
        return e.arrange(Value(e.reshape(v, shape), known), x.order)

    deviation = e.op("Sqrt", e.op("Add", along(variance), float(operation.epsilon)))
    y = e.op("Div", e.op("Sub", x, along(mean)), deviation)
    y = y if scale is None else e.op("Mul", y, along(scale))
    return e.output(y if offset is None else e.op("Add", y, along(offset)), x)


def _folded_batch_norm(
    e: Emission, x: Value, axis: int, epsilon: float, mean: Any, variance: Any, offset: Any, scale: Any
) -> Value:
    mean, variance = (to_numpy(v, "float32").astype(np.float64) for v in (mean, variance))
    factor = (1.0 if scale is None else to_numpy(scale, "float32")) / np.sqrt(variance + epsilon)
    shift = (0.0 if offset is None else to_numpy(offset, "float32")) - mean * factor
    shape = [-1 if i == axis else 1 for i in range(x.rank)]
    factor, shift = (e.constant(v.astype(np.float32).reshape(shape), x) for v in (factor, shift))
    return e.output(e.op("Add", e.op("Mul", x, factor), shift), x)


@emitter("DotProductAttention")
def dot_product_attention(
    e: Emission,
    operation,
    query: Value,
    key: Value,
    value: Value,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
) -> Value:
    if operation.attn_logits_soft_cap is not None:
        raise NotExpressibleError("has attn_logits_soft_cap, which is not exported")
    if query.shape[2] != key.shape[2]:
        raise NotExpressibleError("has fewer heads of keys than of queries")
    # (batch, steps, heads, features) becomes (batch, heads, steps, features).
    queries, values = (e.arrange(v, (0, 2, 1, 3)) for v in (query, value))
    keys = e.arrange(key, (0, 2, 3, 1))
    features = query.shape[3]
    if scale is None:
        if features is None:
            raise NotExpressibleError("has an unknown number of features")
        scale = 1 / math.sqrt(features)
    scores = e.op("Mul", e.op("MatMul", queries, keys), float(scale))
    if bias is not None:
        scores = e.op("Add", scores, e.arrange(e.value(bias, "float32")))
    if operation.is_causal:
        rows, columns = query.shape[1], key.shape[1]
        if rows is None or columns is None:
            raise NotExpressibleError("is causal over an unknown number of steps")
        scores = e.op("Where", np.tril(np.ones((rows, columns), np.bool_)), scores, float(_LEAST))
    if mask is not None:
        scores = e.op("Where", e.arrange(e.value(mask, "bool")), scores, float(_LEAST))
    y = e.op("MatMul", e.op("Softmax", scores, axis=-1), values)
    return Value(y, tuple(e.outputs[0].shape), e.outputs[0].dtype, (0, 2, 1, 3))


#: The score of masked elements in Keras' dot_product_attention.
_LEAST = 0.7 * np.finfo(np.float32).min
