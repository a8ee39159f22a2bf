"""Operations of `keras.ops` that concatenate, split, repeat, rotate or reshape tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.builder import reshape_dims
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.merging import concatenate
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

_END = np.iinfo(np.int64).max


def _int64(*numbers: Any) -> np.ndarray:
    return np.asarray(numbers, np.int64)


def reshape_to(e: Emission, x: Any, shape: Sequence[int | None]) -> ir.Value:
    """Append a Reshape to a shape with at most one unknown axis."""
    dims = [-1 if d is None else d for d in shape]
    if dims.count(-1) > 1:
        kept = reshape_dims(tuple(shape))
        if kept is None:
            raise NotExpressibleError("has an output shape with several unknown axes")
        dims = kept
    return e.reshape(x, dims)


@emitter("Ravel")
def ravel(e: Emission, operation, x: Value) -> Value:
    return e.output(e.reshape(x, [-1]))


@emitter("Stack", layout="any")
def stack(e: Emission, operation, values: Sequence[Any]) -> Value:
    spec = e.outputs[0]
    axis = operation.axis % len(spec.shape)
    order = next(v.order for v in values if isinstance(v, Value))
    parts = [e.op("Unsqueeze", e.arrange(e.value(v, spec.dtype), order), _int64(axis)) for v in values]
    # The new axis is stored at its position in Keras, and the other axes keep their order.
    stored = [a + (a >= axis) for a in order]
    stored.insert(axis, axis)
    return Value(e.op("Concat", *parts, axis=axis), tuple(spec.shape), spec.dtype, tuple(stored))


@emitter("Hstack", "Vstack", "Dstack")
def stack_along(e: Emission, operation, values: Sequence[Any]) -> Value:
    kind = type(operation).__name__
    parts = [e.arrange(e.value(v, e.outputs[0].dtype)) for v in values]
    rank = len(e.outputs[0].shape)
    if any(p.rank != rank for p in parts):
        raise NotExpressibleError("stacks tensors of lower rank than its output; reshape them first")
    axis = {"Hstack": 0 if rank == 1 else 1, "Vstack": 0, "Dstack": 2}[kind]
    return e.output(e.op("Concat", *parts, axis=axis))


@emitter("Append")
def append(e: Emission, operation, x1: Any, x2: Any) -> Value:
    parts = [e.arrange(e.value(v, e.outputs[0].dtype)) for v in (x1, x2)]
    if operation.axis is None:
        return e.output(e.op("Concat", *(e.reshape(p, [-1]) for p in parts), axis=0))
    return concatenate(e, operation, parts)


@emitter("Split", "ArraySplit", layout="any")
def split(e: Emission, operation, x: Value) -> list[Value]:
    return _split(e, x, operation.indices_or_sections, operation.axis)


@emitter("Hsplit", "Vsplit", "Dsplit", layout="any")
def split_along(e: Emission, operation, x: Value) -> list[Value]:
    axis = {"Hsplit": 0 if x.rank == 1 else 1, "Vsplit": 0, "Dsplit": 2}[type(operation).__name__]
    return _split(e, x, operation.indices_or_sections, axis)


def _split(e: Emission, x: Value, sections: Any, axis: int) -> list[Value]:
    x = x if x.flattened is None else e.arrange(x)
    size = x.shape[axis]
    if size is None:
        raise NotExpressibleError("splits an axis of unknown size")
    parts = np.array_split(np.arange(size), sections if isinstance(sections, int) else [int(i) for i in sections])
    pieces = e.split(x, [len(p) for p in parts], x.position(axis))
    return [e.output(y, x, i) for i, y in enumerate(pieces)]


@emitter("Unstack", layout="any")
def unstack(e: Emission, operation, x: Value) -> list[Value]:
    x = x if x.flattened is None else e.arrange(x)
    axis = operation.axis % x.rank
    if x.shape[axis] is None:
        raise NotExpressibleError("unstacks an axis of unknown size")
    shape = tuple(d for a, d in enumerate(x.shape) if a != axis)
    order = tuple(a - (a > axis) for a in x.order if a != axis)
    position = x.position(axis)
    pieces = e.split(x, [1] * int(x.shape[axis] or 0), position)
    return [Value(e.op("Squeeze", y, _int64(position)), shape, x.dtype, order) for y in pieces]


@emitter("Tile")
def tile(e: Emission, operation, x: Value) -> Value:
    repeats = operation.repeats if isinstance(operation.repeats, list | tuple) else [operation.repeats]
    onnx: Any = x
    if len(repeats) > x.rank:
        onnx = e.op("Unsqueeze", x, np.arange(len(repeats) - x.rank, dtype=np.int64))
    repeats = [1] * (x.rank - len(repeats)) + list(repeats)
    return e.output(e.op("Tile", onnx, e.sizes(repeats)))


@emitter("Repeat")
def repeat(e: Emission, operation, x: Value) -> Value:
    axis, onnx, shape = operation.axis, x.onnx, x.shape
    if axis is None:
        onnx, axis = e.reshape(x, [-1]), 0
        shape = (None if None in x.shape else int(np.prod([d or 0 for d in x.shape])),)
    axis %= len(shape)
    size = shape[axis]
    repeats = np.atleast_1d(operation.repeats)
    if size is not None:
        index = np.repeat(np.arange(size, dtype=np.int64), repeats)
        return e.output(e.op("Gather", onnx, index, axis=axis))
    if len(repeats) > 1:
        raise NotExpressibleError("has different repeats for the elements of an axis of unknown size")
    # Add an axis of copies after the repeated axis. A Reshape then merges both axes.
    copies = [1] * (len(shape) + 1)
    copies[axis + 1] = int(repeats[0])
    y = e.op("Expand", e.op("Unsqueeze", onnx, _int64(axis + 1)), _int64(*copies))
    return e.output(reshape_to(e, y, e.outputs[0].shape))


@emitter("Flip", "Fliplr", "Flipud", layout="any")
def flip(e: Emission, operation, x: Value) -> Value:
    x = x if x.flattened is None else e.arrange(x)
    fixed = {"Fliplr": 1, "Flipud": 0}
    axis = fixed.get(type(operation).__name__, getattr(operation, "axis", None))
    axes = range(x.rank) if axis is None else np.atleast_1d(axis).tolist()
    stored = sorted({x.position(a) for a in axes})
    count = len(stored)
    return e.output(
        e.op("Slice", x, _int64(*[-1] * count), _int64(*[-_END] * count), _int64(*stored), _int64(*[-1] * count)), x
    )


@emitter("Roll", layout="any")
def roll(e: Emission, operation, x: Value) -> Value:
    x = x if x.flattened is None else e.arrange(x)
    if operation.axis is None:
        x = e.arrange(x)
        flat = _rolled(e, e.reshape(x, [-1]), int(operation.shift), 0, None)
        return e.output(e.op("Reshape", flat, e.op("Shape", x)))
    axes = np.atleast_1d(operation.axis).tolist()
    shifts = np.broadcast_to(operation.shift, len(axes)).tolist()
    y: Any = x.onnx
    for shift, axis in zip(shifts, axes, strict=True):
        y = _rolled(e, y, shift, x.position(axis), x.shape[axis])
    return e.output(y, x) if y is not x.onnx else x


def _rolled(e: Emission, y: ir.Value, shift: int, axis: int, size: int | None) -> ir.Value:
    shift = shift if size is None else shift % size
    if shift == 0:
        return y
    last = e.op("Slice", y, _int64(-shift), _int64(_END), _int64(axis))
    first = e.op("Slice", y, _int64(0), _int64(-shift), _int64(axis))
    return e.op("Concat", last, first, axis=axis)


@emitter("Rot90", layout="any")
def rotate(e: Emission, operation, x: Value) -> Value:
    x = e.arrange(x)
    first, second = (a % x.rank for a in operation.axes)
    k = operation.k % 4
    perm = list(range(x.rank))
    perm[first], perm[second] = second, first
    y: Any = x.onnx

    def reverse(y: Any, axis: int) -> ir.Value:
        return e.op("Slice", y, _int64(-1), _int64(-_END), _int64(axis), _int64(-1))

    if k == 2:
        y = reverse(reverse(y, first), second)
    elif k:
        y = e.op("Transpose", reverse(y, second) if k == 1 else y, perm=perm)
        y = reverse(y, second) if k == 3 else y
    shape = [x.shape[a] for a in perm] if k % 2 else x.shape  # Keras infers swapped axes for every k
    return Value(y, tuple(shape), x.dtype)


@emitter("BroadcastTo")
def broadcast_to(e: Emission, operation, x: Any) -> Value:
    # An axis of unknown size is already in the tensor. The size 1 leaves it unchanged.
    dims = [1 if d is None or (isinstance(d, int) and d < 0) else d for d in operation.shape]
    return e.output(e.op("Expand", e.value(x, e.outputs[0].dtype), e.sizes(dims)))


@emitter("Tril", "Triu", layout="keras")
def triangle(e: Emission, operation, x: Value) -> Value:
    upper = int(type(operation).__name__ == "Triu")
    return e.output(e.op("Trilu", x, np.int64(operation.k), since=14, upper=upper))


@emitter("DepthToSpace", "SpaceToDepth", layout="channels_first")
def depth_and_space(e: Emission, operation, x: Value) -> Value:
    return e.output(e.op(type(operation).__name__, x, blocksize=int(operation.block_size)), x)
