"""Normalization layers. A pass folds a BatchNormalization into the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.builder import reshape_dims
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Order, Value, channels_first, stored_array


@emitter("BatchNormalization", layout="any")
def batch_normalization(e: Emission, layer, x: Value, mask: Value | None = None) -> Value:
    del mask  # only training uses it
    x = e.cast(x, "float32")
    mean, variance = e.array("moving_mean"), e.array("moving_variance")
    assert mean is not None and variance is not None
    gamma, beta = e.array("gamma"), e.array("beta")
    gamma = np.ones_like(mean) if gamma is None else gamma
    beta = np.zeros_like(mean) if beta is None else beta
    if x.position(layer.axis) == 1 and x.flattened is None:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        arrays = (gamma, beta, mean, variance)
        weights = [e.builder.shared_initializer(f"{e.path}/{n}", a) for n, a in zip(names, arrays, strict=True)]
        return e.output(e.op("BatchNormalization", x, *weights, epsilon=float(layer.epsilon)), x)
    # ONNX' BatchNormalization needs the channels on axis 1. For other axes, use a Mul and an Add.
    factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    shift = beta - mean * factor
    y = e.op("Mul", x, _broadcast(factor, [layer.axis], x))
    return e.output(e.op("Add", y, _broadcast(shift, [layer.axis], x)), x)


@emitter("LayerNormalization", layout="any")
def layer_normalization(e: Emission, layer, x: Value) -> Value:
    if layer.rms_scaling:
        raise NotExpressibleError("has rms_scaling=True, which Keras deprecates; use keras.layers.RMSNormalization")
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return normalize_layer(e, x, axes, layer.epsilon, e.array("gamma"), e.array("beta"))


def normalize_layer(
    e: Emission, x: Value, axes: Sequence[int], epsilon: float, gamma: np.ndarray | None, beta: np.ndarray | None
) -> Value:
    """Layer normalization over Keras' `axes`. `gamma` and `beta` have one axis for each of `axes`, in this order."""
    axes = sorted(a % x.rank for a in axes)
    trailing = axes == list(range(x.rank - len(axes), x.rank))
    if trailing or x.flattened is not None:
        x = e.arrange(x)
    scale = None if gamma is None else _broadcast(gamma, axes, x)
    shift = None if beta is None else _broadcast(beta, axes, x)
    if trailing and e.supports(17):
        sizes = [x.shape[a] for a in axes]
        scale = np.ones(sizes, np.float32) if scale is None else scale.reshape(sizes)
        shift = None if shift is None else shift.reshape(sizes)
        y = e.op("LayerNormalization", x, scale, shift, since=17, axis=-len(axes), epsilon=float(epsilon))
        return x.with_onnx(y)
    stored = sorted(x.position(a) for a in axes)
    centered = e.op("Sub", x, e.op("ReduceMean", x, axes=stored, keepdims=1))
    variance = e.op("ReduceMean", e.op("Mul", centered, centered), axes=stored, keepdims=1)
    y = e.op("Div", centered, e.op("Sqrt", e.op("Add", variance, float(epsilon))))
    for op_type, operand in (("Mul", scale), ("Add", shift)):
        y = y if operand is None else e.op(op_type, y, operand)
    return x.with_onnx(y)


def _channels_second(layer, values: Sequence[Value]) -> list[Order]:
    return [channels_first(v.rank, layer.axis) for v in values]


@emitter("GroupNormalization", layout=_channels_second)
def group_normalization(e: Emission, layer, x: Value) -> Value:
    x = e.cast(x, "float32")
    groups = layer.groups
    # Each group is a channel of ONNX' InstanceNormalization. GroupNormalization (opset 21) takes twice as long in ONNX
    # Runtime, which expands it into more operators.
    grouped = e.reshape(x, [0, groups, -1])
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    y = e.op("InstanceNormalization", grouped, ones, zeros, epsilon=float(layer.epsilon))
    dims = reshape_dims(x.stored_shape)
    y = e.op("Reshape", y, e.op("Shape", x)) if dims is None else e.reshape(y, dims)
    for op_type, name in (("Mul", "gamma"), ("Add", "beta")):
        weight = e.array(name)
        if weight is not None:
            y = e.op(op_type, y, _broadcast(weight, [layer.axis], x))
    return e.output(y, x)


@emitter("RMSNormalization", layout="any")
def rms_normalization(e: Emission, layer, x: Value) -> Value:
    axes = np.atleast_1d(layer.axis).tolist()
    return e.output(normalize_rms(e, x, axes, layer.epsilon, to_numpy(layer.scale, "float32")).onnx, x)


def normalize_rms(e: Emission, x: Value, axes: Sequence[int], epsilon: float, scale: np.ndarray | None) -> Value:
    """Division by the root mean square over Keras' `axes`; `scale` broadcasts as in Keras."""
    x = e.cast(x if x.flattened is None else e.arrange(x), "float32")
    stored = sorted(x.position(a) for a in axes)
    if stored == list(range(x.rank - len(axes), x.rank)) and e.supports(23):
        weight = np.ones(1, np.float32) if scale is None else e.constant(scale, x)
        return x.with_onnx(e.op("RMSNormalization", x, weight, since=23, axis=-len(axes), epsilon=float(epsilon)))
    mean = e.op("ReduceMean", e.op("Mul", x, x), axes=stored, keepdims=1)
    y = e.op("Div", x, e.op("Sqrt", e.op("Add", mean, float(epsilon))))
    return x.with_onnx(y if scale is None else e.op("Mul", y, e.constant(scale, x)))


@emitter("UnitNormalization", layout="any")
def unit_normalization(e: Emission, layer, x: Value) -> Value:
    x = e.cast(x if x.flattened is None else e.arrange(x), "float32")
    stored = sorted(x.position(a) for a in np.atleast_1d(layer.axis).tolist())
    squares = e.op("ReduceSum", e.op("Mul", x, x), np.asarray(stored, np.int64), keepdims=1)
    return e.output(e.op("Div", x, e.op("Max", e.op("Sqrt", squares), 1e-12)), x)


@emitter("SpectralNormalization")
def spectral_normalization(e: Emission, layer, x: Value) -> Value:
    # Training overwrites the kernel of the layer with the normalized kernel.
    return e.emit(layer.layer, x, outputs=e.outputs, inner=layer.layer.name)


def _broadcast(weight: np.ndarray, axes: Sequence[int], like: Value) -> Any:
    """A weight for Keras' `axes`, reshaped and transposed to broadcast against `like`."""
    shape = [1] * like.rank
    for axis in axes:
        size = like.shape[axis]
        assert size is not None
        shape[axis] = size
    return stored_array(weight.astype(np.float32).reshape(shape), like)
