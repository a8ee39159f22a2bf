"""Operations of `keras.ops` that look up, sort, or one-hot encode elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

_END = np.iinfo(np.int64).max


def _int64(*numbers: Any) -> np.ndarray:
    return np.asarray(numbers, np.int64)


def _own_dtype(x: Any, default: str) -> str:
    """The dtype of an argument that may be a number or an array."""
    return str(getattr(x, "dtype", default))


@emitter("Take")
def take(e: Emission, operation, x: Any, indices: Any) -> Value:
    table = e.value(x, e.outputs[0].dtype)
    positions = e.value(indices, "int64" if _own_dtype(indices, "int64") == "int64" else "int32")
    if operation.axis is None:
        return e.output(e.op("Gather", e.reshape(table, [-1]), positions, axis=0))
    return e.output(e.op("Gather", table, positions, axis=operation.axis % table.rank))


@emitter("TakeAlongAxis")
def take_along_axis(e: Emission, operation, x: Any, indices: Any) -> Value:
    table, positions = e.value(x, e.outputs[0].dtype), e.value(indices, "int64")
    if operation.axis is None:
        flat = [e.reshape(v, [-1]) for v in (table, positions)]
        return e.output(e.op("GatherElements", *flat, axis=0))
    axis = operation.axis % table.rank
    others = [(a, b) for i, (a, b) in enumerate(zip(table.shape, positions.shape, strict=True)) if i != axis]
    if any(a != b for a, b in others):
        raise NotExpressibleError("broadcasts the tensor and the indices; use take")
    return e.output(e.op("GatherElements", table, positions, axis=axis))


@emitter("Slice")
def slice_(e: Emission, operation, x: Value, start_indices: Any) -> Value:
    sizes = [-1 if d is None else int(d) for d in operation.shape]
    axes = np.arange(x.rank, dtype=np.int64)
    if any(isinstance(i, Value) for i in np.atleast_1d(np.asarray(start_indices, object)).ravel()):
        starts = _positions(e, start_indices)
        ends: Any = e.op("Add", starts, _int64(*sizes))
        if -1 in sizes:
            raise NotExpressibleError("slices with a dynamic start and an unknown size")
        return e.output(e.op("Slice", x, starts, ends, axes))
    begins = [int(i) for i in np.atleast_1d(start_indices)]
    ends = [_END if n < 0 else b + n for b, n in zip(begins, sizes, strict=True)]
    return e.output(e.op("Slice", x, _int64(*begins), _int64(*ends), axes))


def _positions(e: Emission, indices: Any) -> Any:
    """A vector of indices from one tensor, or from a list of numbers and scalar tensors."""
    if isinstance(indices, Value):
        return e.cast(e.arrange(indices), "int64")
    return e.sizes(indices)


@emitter("OneHot")
def one_hot(e: Emission, operation, x: Value) -> Value:
    return e.output(_one_hot(e, operation, x, e.outputs[0].dtype))


def _one_hot(e: Emission, operation, x: Value, dtype: str) -> ir.Value:
    # Not ONNX' OneHot: it counts negative indices from the end, and Keras returns zeros for them.
    rank = x.rank + 1
    axis = operation.axis % rank
    classes = np.arange(operation.num_classes, dtype=np.int32).reshape([-1 if i == axis else 1 for i in range(rank)])
    hot = e.op("Equal", e.op("Unsqueeze", e.cast(x, "int32"), _int64(axis)), classes)
    shape = (*x.shape[:axis], operation.num_classes, *x.shape[axis:])
    y = e.cast(Value(hot, shape, "bool"), dtype)
    return y.onnx


@emitter("MultiHot")
def multi_hot(e: Emission, operation, x: Value) -> Value:
    hot = _one_hot(e, operation, x, "float32")
    y = e.op("ReduceMax", hot, axes=[1 if x.rank > 1 else 0], keepdims=0)
    spec = e.outputs[0]
    return e.cast(Value(y, tuple(spec.shape)), spec.dtype)


def _top(e: Emission, x: Any, count: Any, axis: int, largest: bool) -> list[ir.Value]:
    """The `count` largest or smallest elements along an axis, sorted, and their indices."""
    attributes = {"axis": axis, "largest": int(largest), "sorted": 1}
    return e.builder.node("TopK", [x, count], attributes, f"{e.path}/TopK", 2)


@emitter("TopK")
def top_k(e: Emission, operation, x: Value) -> list[Value]:
    values, positions = _top(e, _sortable(e, x), _int64(operation.k), x.rank - 1, largest=True)
    shapes = [tuple(spec.shape) for spec in e.outputs]
    return [
        e.cast(Value(values, shapes[0], _sortable(e, x).dtype), e.outputs[0].dtype),
        e.cast(Value(positions, shapes[1], "int64"), e.outputs[1].dtype),
    ]


@emitter("InTopK")
def in_top_k(e: Emission, operation, targets: Value, predictions: Value) -> Value:
    # A target is in the top k if fewer than k predictions are larger than its prediction.
    own = e.op("GatherElements", predictions, e.op("Unsqueeze", e.cast(targets, "int64"), _int64(1)), axis=1)
    larger = e.op("Cast", e.op("Greater", predictions, own), to=ir.DataType.INT32.value)
    count = e.op("ReduceSum", larger, _int64(1), keepdims=0)
    return e.output(e.op("Less", count, np.int32(operation.k)))


@emitter("Sort", "Argsort")
def sort(e: Emission, operation, x: Value) -> Value:
    x, axis, rank = _sortable(e, x), operation.axis, x.rank
    onnx: Any = x
    if axis is None:
        onnx, axis, rank = e.reshape(x, [-1]), 0, 1
    axis %= rank
    count = e.op("Slice", e.op("Shape", onnx), _int64(axis), _int64(axis + 1))
    values, positions = _top(e, onnx, count, axis, largest=False)
    spec = e.outputs[0]
    if type(operation).__name__ == "Sort":
        return e.cast(Value(values, tuple(spec.shape), x.dtype), spec.dtype)
    return e.cast(Value(positions, tuple(spec.shape), "int64"), spec.dtype)


def _sortable(e: Emission, x: Value) -> Value:
    """`x` in a dtype that runtimes can sort."""
    return x if x.dtype in ("float32", "int32", "int64") else e.cast(x, "int32")
