"""Operations of `keras.ops` that reduce axes or accumulate along an axis, except sum, mean, max and min."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.merging import binary
from tensorflow_quantization.export.onnx.emitters.operations import reduce, stored_axes
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value


@emitter("Prod", layout="any")
def prod(e: Emission, operation, x: Value) -> Value:
    return reduce(e, "ReduceProd", e.cast(x, e.outputs[0].dtype), operation.axis, operation.keepdims)


for _op_type, _name in {"ReduceMax": "Amax", "ReduceMin": "Amin"}.items():

    @emitter(_name, layout="any")
    def _extreme(e: Emission, operation, x: Value, op_type: str = _op_type) -> Value:
        return reduce(e, op_type, x, operation.axis, operation.keepdims)


@emitter("CountNonzero", layout="any")
def count_nonzero(e: Emission, operation, x: Value) -> Value:
    numbers = e.cast(e.cast(x, "bool"), e.outputs[0].dtype)
    return reduce(e, "ReduceSum", numbers, operation.axis, keepdims=False)


@emitter("Ptp", layout="any")
def peak_to_peak(e: Emission, operation, x: Value) -> Value:
    x = x if x.flattened is None else e.arrange(x)
    high, low = (reduce(e, t, x, operation.axis, operation.keepdims) for t in ("ReduceMax", "ReduceMin"))
    return high.with_onnx(e.op("Sub", high, low))


def variance(e: Emission, x: Value, axis: Any, keepdims: bool) -> Value:
    """The mean squared distance from the mean."""
    x = x if x.flattened is None else e.arrange(x)
    stored = stored_axes(x, axis)
    centered = x.with_onnx(e.op("Sub", x, e.op("ReduceMean", x, axes=stored, keepdims=1)))
    return reduce(e, "ReduceMean", centered.with_onnx(e.op("Mul", centered, centered)), axis, keepdims)


@emitter("Var", layout="any")
def var(e: Emission, operation, x: Value) -> Value:
    return variance(e, e.cast(x, e.outputs[0].dtype), operation.axis, operation.keepdims)


@emitter("Std", layout="any")
def std(e: Emission, operation, x: Value) -> Value:
    y = variance(e, e.cast(x, e.outputs[0].dtype), operation.axis, operation.keepdims)
    return y.with_onnx(e.op("Sqrt", y))


@emitter("Moments", layout="any")
def moments(e: Emission, operation, x: Value) -> list[Value]:
    x = e.cast(x, "float32")
    mean = reduce(e, "ReduceMean", x, operation.axes, operation.keepdims)
    return [mean, variance(e, x, operation.axes, operation.keepdims)]


@emitter("Logsumexp", layout="any")
def log_sum_exp(e: Emission, operation, x: Value) -> Value:
    # Not as ReduceLogSumExp: OpenVINO 2026.4 does not read its axes before opset 18, and reduces all.
    x = e.cast(x if x.flattened is None else e.arrange(x), "float32")
    stored = stored_axes(x, operation.axis)
    limit = float(np.finfo(np.float32).max)  # an infinite maximum would make the differences NaN
    greatest = e.op("Clip", e.op("ReduceMax", x, axes=stored, keepdims=1), -limit, limit)
    exponents = x.with_onnx(e.op("Exp", e.op("Sub", x, greatest)))
    total = reduce(e, "ReduceSum", exponents, operation.axis, operation.keepdims)
    if not operation.keepdims:
        greatest = e.op("Squeeze", greatest, np.asarray(stored, np.int64))
    return total.with_onnx(e.op("Add", e.op("Log", total), greatest))


@emitter("Average", layout="any")
def average(e: Emission, operation, x: Value, weights: Any = None) -> Value:
    x = e.cast(x, e.outputs[0].dtype)
    if weights is None:
        return reduce(e, "ReduceMean", x, operation.axis, keepdims=False)
    x, axis = e.arrange(x), operation.axis
    weights = e.arrange(e.value(weights, x.dtype))
    if weights.rank != x.rank:
        if weights.rank != 1 or not isinstance(axis, int):
            raise NotExpressibleError(
                "averages with weights that are neither a vector nor have the shape of the tensor"
            )
        shape = tuple(weights.shape[0] if i == axis % x.rank else 1 for i in range(x.rank))
        if None in shape:
            raise NotExpressibleError("averages with a weight vector of unknown length")
        weights = Value(e.reshape(weights, [d or 1 for d in shape]), shape, x.dtype)
    weighted = x.with_onnx(e.op("Mul", x, weights))
    spread = x.with_onnx(e.op("Expand", weights, e.op("Shape", x)))
    total, count = (reduce(e, "ReduceSum", v, axis, keepdims=False) for v in (weighted, spread))
    return total.with_onnx(e.op("Div", total, count))


@emitter("Norm", layout="any")
def norm(e: Emission, operation, x: Value) -> Value:
    x = e.cast(x if x.flattened is None else e.arrange(x), "float32")
    axes = list(range(x.rank)) if operation.axis is None else list(np.atleast_1d(operation.axis))
    if len(axes) > 2 or (len(axes) == 2 and operation.ord not in (None, "fro")):
        raise NotExpressibleError(
            f"has ord={operation.ord!r} over the axes {axes}; matrix norms other than 'fro' are not exported"
        )
    return norm_over(e, x, axes, 2 if operation.ord in (None, "fro") else operation.ord, operation.keepdims)


def norm_over(e: Emission, x: Value, axes: Any, order: float, keepdims: bool) -> Value:
    """The vector norm of `order` over Keras' axes."""
    absolute = x.with_onnx(e.op("Abs", x))
    if order in (math.inf, -math.inf):
        return reduce(e, "ReduceMax" if order > 0 else "ReduceMin", absolute, axes, keepdims)
    if order == 0:
        seen = Value(e.op("Cast", e.op("Cast", x, to=9), to=1), x.shape, x.dtype, x.order)
        return reduce(e, "ReduceSum", seen, axes, keepdims)
    if order == 1:
        return reduce(e, "ReduceSum", absolute, axes, keepdims)
    if order == 2:
        total = reduce(e, "ReduceSum", x.with_onnx(e.op("Mul", x, x)), axes, keepdims)
        return total.with_onnx(e.op("Sqrt", total))
    total = reduce(e, "ReduceSum", x.with_onnx(e.op("Pow", absolute, float(order))), axes, keepdims)
    return total.with_onnx(e.op("Pow", total, 1 / float(order)))


for _op_type, _name in {"ArgMax": "Argmax", "ArgMin": "Argmin"}.items():

    @emitter(_name, layout="any")
    def _position(e: Emission, operation, x: Value, op_type: str = _op_type) -> Value:
        x = x if x.flattened is None else e.arrange(x)
        x = e.cast(x, "int32") if "float" not in x.dtype else x
        keepdims, axis = operation.keepdims, operation.axis
        if axis is None:
            flat = e.reshape(e.arrange(x), [-1])
            position = e.op(op_type, flat, axis=0, keepdims=0)
            if keepdims:
                position = e.reshape(position, [1] * x.rank)
            return _as_output(e, position)
        position = e.op(op_type, x, axis=x.position(axis), keepdims=int(keepdims))
        order = x.order
        if not keepdims:
            remaining = [a for a in range(x.rank) if a != axis % x.rank]
            order = tuple(remaining.index(a) for a in x.order if a in remaining)
        return _as_output(e, position, order)


def _as_output(e: Emission, positions: Any, order: tuple[int, ...] = ()) -> Value:
    spec = e.outputs[0]
    return e.cast(Value(positions, tuple(spec.shape), "int64", order), spec.dtype)


@emitter("Cumsum")
def cumsum(e: Emission, operation, x: Value) -> Value:
    x = e.cast(x, e.outputs[0].dtype)
    if operation.axis is None:
        return e.output(e.op("CumSum", e.reshape(x, [-1]), np.int64(0)))
    return e.output(e.op("CumSum", x, np.int64(operation.axis % x.rank)))


@emitter("Diff")
def diff(e: Emission, operation, x: Value) -> Value:
    axis = np.asarray([operation.axis % x.rank], np.int64)
    end = np.asarray([np.iinfo(np.int64).max], np.int64)
    y: Any = x
    for _ in range(operation.n):
        after = e.op("Slice", y, np.asarray([1], np.int64), end, axis)
        before = e.op("Slice", y, np.asarray([0], np.int64), np.asarray([-1], np.int64), axis)
        y = e.op("Sub", after, before)
    return e.output(y.onnx if isinstance(y, Value) else y)


@emitter("Normalize", layout="any")
def normalize(e: Emission, operation, x: Value) -> Value:
    x = e.cast(x if x.flattened is None else e.arrange(x), "float32")
    epsilon = float(operation.epsilon or keras.config.epsilon())
    axes = list(range(x.rank)) if operation.axis is None else np.atleast_1d(operation.axis).tolist()
    length = norm_over(e, x, axes, operation.order, keepdims=True)
    return binary(e, "Div", x, length.with_onnx(e.op("Max", length, epsilon)))
