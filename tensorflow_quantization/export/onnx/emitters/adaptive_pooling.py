"""Adaptive pooling: the output size is given, and the windows follow from it."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._windows import repeated
from tensorflow_quantization.export.onnx.emitters.reshaping import crop, spatial_axes
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

for _kind in ("Average", "Max"):

    @emitter(*(f"Adaptive{_kind}Pooling{rank}D" for rank in (1, 2, 3)), layout="channels_first")
    def _adaptive(e: Emission, layer, x: Value, kind: str = _kind) -> Value:
        axes = spatial_axes(layer, x.rank)
        made = dict(zip(axes, repeated(layer.output_size, x.rank - 2), strict=True))
        sizes = {axis: x.shape[axis] for axis in axes}
        if None in sizes.values():
            raise NotExpressibleError("pools an image of unknown size to a fixed size")
        if all(sizes[a] % made[a] == 0 for a in axes):  # type: ignore[operator]
            window = [sizes[a] // made[a] for a in x.order[2:]]  # type: ignore[operator]
            pool = e.op("MaxPool" if kind == "Max" else "AveragePool", x, kernel_shape=window, strides=window)
            return e.output(pool, x)
        for axis in axes:
            x = _pool_axis(e, x, axis, made[axis], "ReduceMax" if kind == "Max" else "ReduceMean")
        return x


def _pool_axis(e: Emission, x: Value, axis: int, count: int, op_type: str) -> Value:
    """Pool `count` windows of different sizes along one axis of Keras: one Slice and one reduction per window."""
    size = x.shape[axis]
    assert size is not None
    ends = -(-np.arange(1, count + 1) * size // count)  # rounded up
    begins = np.arange(count) * size // count
    position = x.position(axis)
    parts = [
        e.op(op_type, crop(e, x, {axis: (int(begin), int(end))}), axes=[position], keepdims=1)
        for begin, end in zip(begins, ends, strict=True)
    ]
    y = parts[0] if count == 1 else e.op("Concat", *parts, axis=position)
    shape = tuple(count if i == axis else d for i, d in enumerate(x.shape))
    return Value(y, shape, x.dtype, x.order)
