"""Merging layers, and elementwise operations of several tensors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.builder import reshape_dims
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value, stored_array

_layers = keras.layers


def align(e: Emission, values: Sequence[Value], axis: int) -> list[Value]:
    """The values with equal rank and axis order. Values of lower rank get axes of size 1 at `axis`."""
    if len({v.flattened for v in values}) > 1:
        values = [v if v.flattened is None else e.arrange(v) for v in values]
    largest = max(values, key=lambda v: v.rank)
    aligned = []
    for v in values:
        missing = largest.rank - v.rank
        if missing:
            v = e.arrange(v)
            shape = (*v.shape[:axis], *[1] * missing, *v.shape[axis:])
            dims = reshape_dims(shape) if axis > 0 else None
            if dims is not None:
                v = Value(e.reshape(v, dims), shape, v.dtype)
            else:
                axes = np.arange(axis, axis + missing, dtype=np.int64)
                v = Value(e.op("Unsqueeze", v, axes), shape, v.dtype)
        aligned.append(v)
    return [v if v.order == largest.order else e.arrange(v, largest.order) for v in aligned]


def _fold(e: Emission, op_type: str, values: Sequence[Value]) -> tuple[ir.Value, Value]:
    values = align(e, [e.cast(v, e.outputs[0].dtype) for v in values], axis=1)
    y = values[0].onnx
    for v in values[1:]:
        y = e.op(op_type, y, v)
    return y, values[0]


for _op_type, _layer in {
    "Add": _layers.Add,
    "Sub": _layers.Subtract,
    "Mul": _layers.Multiply,
    "Max": _layers.Maximum,
    "Min": _layers.Minimum,
}.items():

    @emitter(_layer, layout="any")
    def _merge(e: Emission, layer, values: Sequence[Value], op_type: str = _op_type) -> Value:
        return e.output(*_fold(e, op_type, values))


@emitter(_layers.Average, layout="any")
def average(e: Emission, layer, values: Sequence[Value]) -> Value:
    total, like = _fold(e, "Add", values)
    return e.output(e.op("Div", total, float(len(values))), like)


@emitter("Concatenate", layout="any")
def concatenate(e: Emission, operation, values: Sequence[Any]) -> Value:
    values = [e.value(v, e.outputs[0].dtype) for v in values]
    if any(v.flattened is not None for v in values):
        values = [e.arrange(v) for v in values]
    values = [v if v.order == values[0].order else e.arrange(v, values[0].order) for v in values]
    return e.output(e.op("Concat", *values, axis=values[0].position(operation.axis)), values[0])


@emitter(_layers.Dot)
def dot(e: Emission, layer, values: Sequence[Value]) -> Value:
    if layer.normalize:
        raise NotExpressibleError("has normalize=True; use keras.layers.UnitNormalization before it instead")
    if any(v.rank > 3 for v in values):
        raise NotExpressibleError("has an input of rank 4 or more")
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else layer.axes
    axes = [a % v.rank for a, v in zip(axes, values, strict=True)]
    # (batch, rest, shared) times (batch, shared, rest)
    first = _batch_matrix(e, values[0], axes[0], shared_last=True)
    second = _batch_matrix(e, values[1], axes[1], shared_last=False)
    y = e.op("MatMul", first, second)
    dims = reshape_dims(e.outputs[0].shape)
    if all(v.rank == 3 for v in values):
        return e.output(y)
    if dims is None:
        raise NotExpressibleError("has an output with several unknown axes")
    return e.output(e.reshape(y, dims))


def _batch_matrix(e: Emission, v: Value, shared: int, shared_last: bool) -> ir.Value | Value:
    if v.rank == 2:
        return e.op("Unsqueeze", v, np.asarray([1 if shared_last else 2], np.int64))
    if (shared == 2) == shared_last:
        return v
    return e.op("Transpose", v, perm=[0, 2, 1])


def elementwise(
    e: Emission, op_type: str, arguments: Sequence[Any], dtypes: Sequence[str | None], dtype: str | None = None
) -> Value:
    """Append an elementwise operator.

    Args:
        e: the emission of the call.
        op_type: name of the operator.
        arguments: `Value`s, numbers, arrays or variables; at least one `Value`.
        dtypes: the dtype to which each argument is cast; `None` leaves a `Value` unchanged.
        dtype: dtype of the result. Default: dtype and shape of the call's output.
    """
    # An array of higher rank than all tensors determines the rank of the result, so align it too.
    rank = max(v.rank for v in arguments if isinstance(v, Value))
    operands = [
        v if isinstance(v, Value) or np.ndim(v) <= rank else e.value(v, d or "float32")
        for v, d in zip(arguments, dtypes, strict=True)
    ]
    cast = [
        e.cast(v, d) if isinstance(v, Value) and d is not None else v for v, d in zip(operands, dtypes, strict=True)
    ]
    values = iter(align(e, [v for v in cast if isinstance(v, Value)], axis=0))
    aligned = [next(values) if isinstance(v, Value) else v for v in cast]
    like = max((v for v in aligned if isinstance(v, Value)), key=lambda v: v.rank)
    final = [
        v if isinstance(v, Value) else stored_array(to_numpy(v, d or like.dtype), like)
        for v, d in zip(aligned, dtypes, strict=True)
    ]
    y = e.op(op_type, *final)
    if dtype is None:
        return e.output(y, like)
    shape = _broadcast([v.shape if isinstance(v, Value) else np.shape(v) for v in aligned])
    return Value(y, shape, dtype, like.order, like.flattened)


def _broadcast(shapes: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
    """The shape of an elementwise result. An unknown size beside a known one other than 1 is this size, or 1."""
    reversed_axes = itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    sizes = [max(axis, key=lambda d: (d != 1, d is not None)) for axis in reversed_axes]
    return tuple(reversed(sizes))


def binary(e: Emission, op_type: str, x1: Any, x2: Any, dtype: str | None = None) -> Value:
    """Append an elementwise operator of two arguments that computes in `dtype`, by default the output's dtype."""
    dtype = dtype or e.outputs[0].dtype
    return elementwise(e, op_type, [x1, x2], [dtype, dtype])


def common_dtype(*arguments: Any) -> str:
    """The dtype in which Keras combines tensors, arrays and numbers; int32 instead of bool."""
    kinds = [v.dtype if isinstance(v, Value) else getattr(v, "dtype", type(v)) for v in arguments]
    dtype = keras.backend.result_type(
        *(k if isinstance(k, str | type) else keras.backend.standardize_dtype(k) for k in kinds)
    )
    return "int32" if dtype == "bool" else dtype


for _op_type, _name in {
    "Add": "Add",
    "Sub": "Subtract",
    "Mul": "Multiply",
    "Max": "Maximum",
    "Min": "Minimum",
    "Pow": "Power",
}.items():

    @emitter(_name, layout="any")
    def _binary(e: Emission, operation, x1: Any, x2: Any, op_type: str = _op_type) -> Value:
        return binary(e, op_type, x1, x2)


@emitter("Divide", "TrueDivide", layout="any")
def divide(e: Emission, operation, x1: Any, x2: Any) -> Value:
    return binary(e, "Div", x1, x2)


for _op_type, _name in {
    "Equal": "Equal",
    "Greater": "Greater",
    "GreaterOrEqual": "GreaterEqual",
    "Less": "Less",
    "LessOrEqual": "LessEqual",
}.items():

    @emitter(_name, layout="any")
    def _compare(e: Emission, operation, x1: Any, x2: Any, op_type: str = _op_type) -> Value:
        return binary(e, op_type, x1, x2, common_dtype(x1, x2))
