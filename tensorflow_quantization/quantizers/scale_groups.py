"""Which elements of a weight share a scale: all of it, an output channel, or a block of inputs of an output channel.

    kernel (K, M), blocks of 32   →   groups (ceil(K / 32), 32, M): one scale for each [i, :, j]

All functions here take the weight in the shape of its layer. K runs over all axes but the channel axes, in their
order: a kernel (heads, size, M) of an attention's last projection has K = heads x size.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from tensorflow_quantization.quantizers.scheme import QuantizationScheme

Array = Any


def reduced_axes(rank: int, scheme: QuantizationScheme) -> tuple[int, ...]:
    """Returns the axes of a weight that are no channel axes: all but `scheme.axis`.

    Examples:
        >>> reduced_axes(4, QuantizationScheme(axis=-1))
        (0, 1, 2)

    Args:
        rank: the number of axes of the weight.
        scheme: `scheme.axis` names the channel axes; `None` is per-tensor.

    Returns:
        Axes counted from 0, in ascending order.
    """
    kept = {a % rank for a in scheme.axis or ()}
    return tuple(a for a in range(rank) if a not in kept)


def grouped(weight: Array, scheme: QuantizationScheme, xp=keras.ops) -> tuple[Array, tuple[int, ...]]:
    """Returns a weight in groups, and the axes along which elements of the result share a scale.

    Examples:
        >>> import numpy as np
        >>> groups, axes = grouped(np.ones((40, 3)), QuantizationScheme(axis=-1, block_size=16), np)
        >>> groups.shape, axes
        ((3, 16, 3), (1,))

    Args:
        weight: array of any shape.
        scheme: `axis` and `block_size` say which elements share a scale.
        xp: the array namespace; default `keras.ops`.

    Returns:
        (groups, axes). Without blocks, `weight` itself. With blocks, an array (blocks, block size, channels); a last
        block that is shorter is filled with zeros.
    """
    shape = tuple(weight.shape)
    if scheme.block_size is None:
        return weight, reduced_axes(len(shape), scheme)
    order, inputs, channels = _matrix(shape, scheme)
    rows = xp.reshape(xp.transpose(weight, order), (inputs, channels))
    blocks = -(-inputs // scheme.block_size)
    missing = blocks * scheme.block_size - inputs
    if missing:
        rows = xp.pad(rows, ((0, missing), (0, 0)))
    return xp.reshape(rows, (blocks, scheme.block_size, channels)), (1,)


def ungrouped(groups: Array, shape: tuple[int, ...], scheme: QuantizationScheme, xp=keras.ops) -> Array:
    """Returns the weight of which `grouped` returned the groups, or other numbers in the same places.

    Args:
        groups: array in the shape that `grouped` returns.
        shape: the shape of the weight.
        scheme: as for `grouped`.
        xp: the array namespace; default `keras.ops`.

    Returns:
        An array of `shape`.
    """
    if scheme.block_size is None:
        return groups
    order, inputs, channels = _matrix(shape, scheme)
    rows = xp.reshape(groups, (-1, channels))[:inputs]
    back = tuple(order.index(axis) for axis in range(len(shape)))
    return xp.transpose(xp.reshape(rows, tuple(shape[axis] for axis in order)), back)


def spread(numbers: Array, shape: tuple[int, ...], scheme: QuantizationScheme, xp=keras.ops) -> Array:
    """Returns one number per group so that it broadcasts to the weight.

    Examples:
        >>> import numpy as np
        >>> scales = np.array([[[0.5]], [[2.0]]])  # of two blocks of one channel
        >>> spread(scales, (18, 1), QuantizationScheme(axis=-1, block_size=16), np)[14:].tolist()
        [[0.5], [0.5], [2.0], [2.0]]

    Args:
        numbers: an array in the shape of the groups, but 1 along the axes that `grouped` returns.
        shape: the shape of the weight.
        scheme: as for `grouped`.
        xp: the array namespace; default `keras.ops`.

    Returns:
        Without blocks, `numbers` itself; with blocks, an array of `shape`.
    """
    if scheme.block_size is None:
        return numbers
    blocks, _, channels = numbers.shape
    return ungrouped(xp.broadcast_to(numbers, (blocks, scheme.block_size, channels)), shape, scheme, xp)


def _matrix(shape: tuple[int, ...], scheme: QuantizationScheme) -> tuple[tuple[int, ...], int, int]:
    """The axes of a weight with the output channels last, the number of inputs and the number of channels."""
    inputs = reduced_axes(len(shape), scheme)
    channels = tuple(axis for axis in range(len(shape)) if axis not in inputs)
    return (*inputs, *channels), math.prod(shape[a] for a in inputs), math.prod(shape[a] for a in channels)
