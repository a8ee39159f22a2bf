"""Layers and operations that move, repeat, pad or crop elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.builder import reshape_dims
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value, keras_order, moves_no_data

_END = np.iinfo(np.int64).max


@emitter("Flatten", layout="any")
def flatten(e: Emission, layer, x: Value) -> Value:
    if layer.data_format == "channels_first" and x.rank > 2:
        x = permute(x, (0, *range(2, x.rank), 1))  # Keras flattens channels last
    if x.rank == 2:
        return x
    if x.rank == 1:
        return e.output(e.op("Unsqueeze", x, np.asarray([1], np.int64)))
    # Recurrent operators store the batch second.
    if x.order[0] != 0:
        x = e.arrange(x)
    plain = moves_no_data(x.shape, x.order, keras_order(x.rank))
    if not plain and None in x.shape[1:]:
        x, plain = e.arrange(x), True
    spec = e.outputs[0]
    dims = [0, -1 if spec.shape[1] is None else spec.shape[1]]
    flattened = None if plain else (x.shape, x.order)
    return Value(e.reshape(x, dims), tuple(spec.shape), x.dtype, flattened=flattened)


@emitter("Reshape")
def reshape(e: Emission, operation, x: Value) -> Value:
    # The layer has `target_shape` without the batch axis, the operation of keras.ops `newshape` for all axes.
    batch = getattr(operation, "target_shape", None) is not None
    target = [0, *operation.target_shape] if batch else list(operation.newshape)
    shape = e.outputs[0].shape
    if any(isinstance(size, Value) for size in target):
        return e.output(e.op("Reshape", x, e.sizes(target)))
    dims = []
    for axis, size in enumerate(target):
        known = shape[axis] if axis < len(shape) else size
        if (size == 0 and batch) or (size is None and axis == 0):
            dims.append(0)
        else:
            dims.append(-1 if known is None else known)
    if dims.count(-1) > 1:
        raise NotExpressibleError("has an output shape with several unknown axes")
    return e.output(e.reshape(x, dims))


def permute(x: Value, axes: Sequence[int]) -> Value:
    """`x` with Keras' axes permuted. No data moves: only shape and order of the value change."""
    shape = tuple(x.shape[a] for a in axes)
    return Value(x.onnx, shape, x.dtype, tuple(list(axes).index(a) for a in x.order))


@emitter("Permute", layout="any")
def permute_layer(e: Emission, layer, x: Value) -> Value:
    return permute(_unflattened(e, x), (0, *layer.dims))


@emitter("Transpose", layout="any")
def transpose(e: Emission, operation, x: Value) -> Value:
    axes = operation.axes if operation.axes is not None else range(x.rank)[::-1]
    return permute(_unflattened(e, x), [a % x.rank for a in axes])


@emitter("Swapaxes", layout="any")
def swap_axes(e: Emission, operation, x: Value) -> Value:
    axes = list(range(x.rank))
    first, second = operation.axis1 % x.rank, operation.axis2 % x.rank
    axes[first], axes[second] = second, first
    return permute(_unflattened(e, x), axes)


@emitter("Moveaxis", layout="any")
def move_axis(e: Emission, operation, x: Value) -> Value:
    sources = [a % x.rank for a in np.atleast_1d(operation.source)]
    targets = [a % x.rank for a in np.atleast_1d(operation.destination)]
    axes = [a for a in range(x.rank) if a not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        axes.insert(target, source)
    return permute(_unflattened(e, x), axes)


def _unflattened(e: Emission, x: Value) -> Value:
    return x if x.flattened is None else e.arrange(x)


@emitter("RepeatVector")
def repeat_vector(e: Emission, layer, x: Value) -> Value:
    y = e.op("Unsqueeze", x, np.asarray([1], np.int64))
    return e.output(e.op("Expand", y, np.asarray([1, layer.n, 1], np.int64)))


@emitter("ExpandDims")
def expand_dims(e: Emission, operation, x: Value) -> Value:
    axes = [a % len(e.outputs[0].shape) for a in np.atleast_1d(operation.axis).tolist()]
    dims = reshape_dims(e.outputs[0].shape)
    if 0 not in axes and dims is not None:
        return e.output(e.reshape(x, dims))
    return e.output(e.op("Unsqueeze", x, np.asarray(axes, np.int64)))


@emitter("Squeeze")
def squeeze(e: Emission, operation, x: Value) -> Value:
    axes = [i for i, d in enumerate(x.shape) if d == 1] if operation.axis is None else operation.axis
    axes = [a % x.rank for a in np.atleast_1d(axes).tolist()]
    dims = reshape_dims(e.outputs[0].shape)
    if 0 not in axes and dims is not None:
        return e.output(e.reshape(x, dims))
    return e.output(e.op("Squeeze", x, np.asarray(axes, np.int64)))


def spatial_axes(layer: Any, rank: int) -> list[int]:
    """Keras' axes that are neither batch nor channels."""
    first = 2 if getattr(layer, "data_format", "channels_last") == "channels_first" else 1
    return list(range(first, first + rank - 2))


def pad(
    e: Emission, x: Value, amounts: dict[int, tuple[int, int]], mode: str = "constant", value: Any = None
) -> ir.Value:
    """Append a Pad with numbers of elements before and after Keras' axes; `x` itself if all numbers are 0."""
    begins, ends = [0] * x.rank, [0] * x.rank
    for axis, (before, after) in amounts.items():
        begins[x.position(axis)], ends[x.position(axis)] = int(before), int(after)
    if not any(begins) and not any(ends):
        return x.onnx
    return e.op("Pad", x, np.asarray(begins + ends, np.int64), value, mode=mode)


# Channels first, like the convolution that usually follows: no Transpose is needed between them.
@emitter("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", layout="channels_first")
def zero_padding(e: Emission, layer, x: Value) -> Value:
    axes = spatial_axes(layer, x.rank)
    amounts = [layer.padding] if x.rank == 3 else layer.padding
    return e.output(pad(e, x, dict(zip(axes, amounts, strict=True))), x)


@emitter("Pad", layout="any")
def pad_operation(e: Emission, operation, x: Value, constant_values: Any = None) -> Value:
    x = _unflattened(e, x)
    widths = list(operation.pad_width)
    widths = widths * x.rank if len(widths) == 1 else widths
    if operation.mode == "symmetric":
        return _pad_symmetrically(e, x, widths)
    value = None if constant_values is None else np.asarray(constant_values, x.dtype)
    return e.output(pad(e, x, dict(enumerate(widths)), operation.mode, value), x)


def _pad_symmetrically(e: Emission, x: Value, widths: Sequence[tuple[int, int]]) -> Value:
    """Mirror with the edge element repeated. ONNX has no such mode, so the elements are gathered."""
    y: Any = x
    for axis, width in enumerate(widths):
        size = x.shape[axis]
        if not any(width):
            continue
        if size is None:
            raise NotExpressibleError("mirrors an axis of unknown size")
        positions = np.pad(np.arange(size, dtype=np.int64), width, mode="symmetric")
        y = e.op("Gather", y, positions, axis=x.position(axis))
    return x if y is x else e.output(y, x)


def crop(e: Emission, x: Value, bounds: dict[int, tuple[Any, Any]], steps: dict[int, int] | None = None) -> ir.Value:
    """Append a Slice of Keras' axes, each with the start and the end, exclusive, in `bounds`: ints or scalar values."""
    axes = sorted(bounds, key=x.position)
    arguments = [[bounds[a][0] for a in axes], [bounds[a][1] for a in axes], [x.position(a) for a in axes]]
    if steps:
        arguments.append([steps.get(a, 1) for a in axes])
    return e.op("Slice", x, *map(e.sizes, arguments))


@emitter("Cropping1D", "Cropping2D", "Cropping3D", layout="channels_first")
def cropping(e: Emission, layer, x: Value) -> Value:
    amounts = [layer.cropping] if x.rank == 3 else layer.cropping
    bounds = {
        axis: (before, -after if after else _END)
        for axis, (before, after) in zip(spatial_axes(layer, x.rank), amounts, strict=True)
        if before or after
    }
    return e.output(crop(e, x, bounds), x) if bounds else x


@emitter("GetItem", layout="any")
def get_item(e: Emission, operation, x: Value, key: Any) -> Value:
    keys = list(key) if isinstance(key, tuple | list) else [key]
    if not all(k is None or k is Ellipsis or isinstance(k, slice | int | np.integer) or _is_size(k) for k in keys):
        raise NotExpressibleError("takes elements at dynamic positions")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        missing = x.rank - sum(k is not None for k in keys) + 1
        keys[at : at + 1] = [slice(None)] * missing
    if x.flattened is not None or any(not isinstance(k, slice) for k in keys):
        x = e.arrange(x)
    bounds, steps, dropped, new = {}, {}, [], []
    axis = 0
    for position, k in enumerate(keys):
        if k is None:
            new.append(position - sum(other is not None and not isinstance(other, slice) for other in keys[:position]))
            continue
        if isinstance(k, slice):
            if k != slice(None):
                bounds[axis], steps[axis] = _slice_bounds(k)
        else:
            bounds[axis] = _element_bounds(e, k)
            dropped.append(axis)
        axis += 1
    y = crop(e, x, bounds, {a: s for a, s in steps.items() if s != 1}) if bounds else x.onnx
    if dropped:
        y = e.op("Squeeze", y, np.asarray(dropped, np.int64))
    if new:
        y = e.op("Unsqueeze", y, np.asarray(new, np.int64))
    return e.output(y, x)


def _slice_bounds(key: slice) -> tuple[tuple[Any, Any], int]:
    step = 1 if key.step is None else int(key.step)
    start, stop = (0, _END) if step > 0 else (_END, -_END)
    return (start if key.start is None else _bound(key.start), stop if key.stop is None else _bound(key.stop)), step


def _bound(size: Any) -> Any:
    return size if isinstance(size, Value) else int(size)


def _element_bounds(e: Emission, index: Any) -> tuple[Any, Any]:
    """Start and end of the slice of one element."""
    if isinstance(index, Value):
        return index, index.with_onnx(e.op("Add", index, np.int64(1)))
    return int(index), int(index) + 1 if index != -1 else _END


def _is_size(key: Any) -> bool:
    """Whether a key is a size that is known only at run time, and not a tensor of positions."""
    return isinstance(key, Value) and key.rank == 0
