"""Resizes images: Resizing, UpSampling and `keras.ops.image.resize`.

Nearest neighbor and bilinear interpolation use ONNX' Resize. Runtimes and backends of Keras differ in all other
interpolations. But these are a matrix product along each axis, and Keras returns the matrix if it resizes an identity
matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.emitters._windows import repeated
from tensorflow_quantization.export.onnx.emitters.reshaping import crop, pad, spatial_axes
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Order, Value, channels_first, keras_order

_ONE_SIZE = "build the model for images of one size"


@emitter("Resizing", layout="channels_first")
def resizing(e: Emission, layer, x: Value) -> Value:
    if layer.height is None or layer.width is None:
        raise NotExpressibleError(f"resizes to an unknown size; {_ONE_SIZE}")
    return _resize(e, layer, x, [layer.height, layer.width])


def _images_channels_first(operation, values: Sequence[Value]) -> list[Order]:
    (x,) = values
    return [_channels_first(operation) if x.rank == 4 else keras_order(x.rank)]


def _channels_first(operation: Any) -> Order:
    return channels_first(4, -1 if operation.data_format == "channels_last" else 1)


@emitter("Resize", layout=_images_channels_first)
def resize_operation(e: Emission, operation, x: Value) -> Value:
    if x.rank == 4:
        return _resize(e, operation, x, operation.size)
    axis = np.asarray([0], np.int64)
    batch = Value(e.op("Unsqueeze", x, axis), (1, *x.shape), x.dtype)
    y = e.arrange(_resize(e, operation, e.arrange(batch, _channels_first(operation)), operation.size))
    return e.output(e.op("Squeeze", y, axis))


@emitter("UpSampling1D", "UpSampling2D", "UpSampling3D", layout="channels_first")
def up_sampling(e: Emission, layer, x: Value) -> Value:
    interpolation = getattr(layer, "interpolation", "nearest")
    axes = spatial_axes(layer, x.rank)
    factors = dict(zip(axes, repeated(layer.size, x.rank - 2), strict=True))
    if interpolation not in ("nearest", "bilinear"):
        sizes = [x.shape[axis] for axis in axes]
        return _resize(e, layer, x, [factors[a] * (d or 0) for a, d in zip(axes, sizes, strict=True)])
    nearest = interpolation == "nearest"
    y = e.op(
        "Resize",
        x,
        None,
        np.asarray([factors.get(axis, 1) for axis in x.order], np.float32),
        mode="nearest" if nearest else "linear",
        coordinate_transformation_mode="asymmetric" if nearest else "half_pixel",
        nearest_mode="floor" if nearest else None,
    )
    return e.output(y, x)


def _resize(e: Emission, layer: Any, x: Value, size: Sequence[Any]) -> Value:
    """Resize a batch of images, stored channels first, with the options of a layer or operation."""
    integers = np.iinfo(x.dtype) if "int" in x.dtype else None
    x = e.cast(x, "float32")
    # UpSampling2D has no such options.
    if getattr(layer, "crop_to_aspect_ratio", False) or getattr(layer, "pad_to_aspect_ratio", False):
        x = _fit(e, layer, x, size)
    antialias = getattr(layer, "antialias", False)
    if layer.interpolation == "nearest" or (layer.interpolation == "bilinear" and not antialias):
        y = _by_operator(e, x, size, layer.interpolation)
    else:
        y = _by_matrices(e, x, size, layer.interpolation, antialias)
    if integers is not None:  # Keras rounds images of an integer dtype
        y = e.op("Clip", e.op("Round", y), float(integers.min), float(integers.max))
    known = [None if isinstance(d, Value) else d for d in size]
    return e.cast(_sized(x, y, dict(zip(x.order[2:], known, strict=True))), e.outputs[0].dtype)


def _sized(like: Value, onnx: ir.Value, sizes: Mapping[int, int | None]) -> Value:
    """`onnx` as a value like `like`, with other sizes for some of Keras' axes."""
    shape = tuple(sizes.get(axis, d) for axis, d in enumerate(like.shape))
    return Value(onnx, shape, like.dtype, like.order)


def _fit(e: Emission, layer: Any, x: Value, size: Sequence[Any]) -> Value:
    """Crop or pad images at the center to the aspect ratio of `size`."""
    height, width = x.stored_shape[2:]
    if height is None or width is None or any(isinstance(d, Value) for d in size):
        raise NotExpressibleError(f"crops or pads to the aspect ratio of images of unknown size; {_ONE_SIZE}")
    wanted = int(width * size[0] / size[1]), int(height * size[1] / size[0])
    given = {x.order[2]: (height, wanted[0]), x.order[3]: (width, wanted[1])}
    if layer.crop_to_aspect_ratio:
        kept = {axis: max(min(have, want), 1) for axis, (have, want) in given.items()}
        bounds = {}
        for axis, (have, _) in given.items():
            start = (have - kept[axis]) // 2
            bounds[axis] = (start, start + kept[axis])
        return _sized(x, crop(e, x, bounds), kept)
    added = {axis: (max(have, want) - have) // 2 for axis, (have, want) in given.items()}
    y = pad(e, x, {axis: (n, n) for axis, n in added.items()}, value=np.float32(layer.fill_value))
    return _sized(x, y, {axis: have + 2 * added[axis] for axis, (have, _) in given.items()})


def _by_operator(e: Emission, x: Value, size: Sequence[Any], interpolation: str) -> ir.Value:
    """Append a Resize with half-pixel centers, as in Keras."""
    nearest = interpolation == "nearest"
    leading = e.op("Slice", e.op("Shape", x), np.asarray([0], np.int64), np.asarray([2], np.int64))
    return e.op(
        "Resize",
        x,
        None,
        None,
        e.op("Concat", leading, e.sizes(size), axis=0),
        mode="nearest" if nearest else "linear",
        coordinate_transformation_mode="half_pixel",
        nearest_mode="round_prefer_ceil" if nearest else None,
    )


def _by_matrices(e: Emission, x: Value, size: Sequence[Any], interpolation: str, antialias: bool) -> ir.Value:
    """Append a matrix product for each axis whose size changes, with the weights of Keras on this backend."""
    height, width = x.stored_shape[2:]
    if height is None or width is None or any(isinstance(d, Value) for d in size):
        how = f"interpolation={interpolation!r}" + (" and antialias=True" if antialias else "")
        raise NotExpressibleError(f"has {how}, whose weights depend on the size of the images; {_ONE_SIZE}")

    def weights(name: str, old: int, new: int, transposed: bool) -> ir.Value:
        try:
            matrix = _matrix(old, new, interpolation, antialias)
        except ValueError as error:
            raise NotExpressibleError(
                f"has an interpolation that this backend of Keras does not support: {error}"
            ) from error
        return e.builder.shared_initializer(f"{e.path}/{name}", matrix.T if transposed else matrix)

    y: Any = x
    if size[0] != height:
        y = e.op("MatMul", weights("height_weights", height, size[0], False), y)
    if size[1] != width:
        y = e.op("MatMul", y, weights("width_weights", width, size[1], True))
    return y.onnx if y is x else y


def _matrix(old: int, new: int, interpolation: str, antialias: bool) -> np.ndarray:
    """The weights of the old pixels of a column in each new pixel, (new, old)."""
    columns = np.eye(old, dtype=np.float32).reshape(1, old, 1, old)  # each channel has a single pixel of 1
    options = {"interpolation": interpolation, "antialias": antialias, "data_format": "channels_last"}
    return to_numpy(keras.ops.image.resize(columns, (new, 1), **options), "float32")[0, :, 0]
