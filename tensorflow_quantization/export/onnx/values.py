"""`Value`: a tensor of the ONNX graph with the order in which the axes of the Keras tensor are stored.

ONNX convolutions need channels first, and most Keras models have channels last. A Transpose around each convolution
would be slow. So each value carries its order of axes, each emitter says which order it needs, and a Transpose is
written only where the two differ.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

Shape = tuple[int | None, ...]
Order = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the ONNX graph: what an emitter gets for each tensor argument of a layer's `call`.

    Args:
        onnx: the `onnx_ir.Value` of the ONNX graph.
        shape: the shape in Keras, a tuple; `None` for an axis of unknown size.
        dtype: the dtype in Keras; default "float32". All float dtypes are stored as "float32".
        order: the order in which the axes are stored: axis i of the ONNX tensor is axis `order[i]` of the Keras
            tensor. (0, 3, 1, 2) stores an image with channels last as (batch, channels, height, width). Default: the
            order of Keras.
        flattened: only for a tensor (batch, elements) that was an image stored channels first when it was flattened:
            shape and order of that image. Its elements have another order than in Keras, and the Dense layer that
            reads them permutes the rows of its kernel. Default: `None`.

    Examples:
        >>> image = Value(ir.Value(name="image"), (None, 32, 24, 3), order=(0, 3, 1, 2))
        >>> image.stored_shape
        (None, 3, 32, 24)
        >>> image.position(-1)  # where the channels are stored
        1
    """

    onnx: ir.Value
    shape: Shape
    dtype: str = "float32"
    order: Order = ()
    flattened: tuple[Shape, Order] | None = None

    def __post_init__(self):
        object.__setattr__(self, "dtype", stored_dtype(self.dtype))
        if not self.order:
            object.__setattr__(self, "order", keras_order(self.rank))

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether axes and elements are stored in the order of Keras."""
        return self.order == keras_order(self.rank) and self.flattened is None

    @property
    def stored_shape(self) -> Shape:
        """The shape of the ONNX tensor; `None` for an axis of unknown size."""
        return tuple(self.shape[a] for a in self.order)

    def position(self, axis: int) -> int:
        """The axis of the ONNX tensor that stores Keras' `axis`, which may be negative."""
        return self.order.index(axis % self.rank)

    def with_onnx(self, onnx: ir.Value, dtype: str | None = None) -> Value:
        """A value with the same shape and order for another tensor: the result of an elementwise operator on this one.

        Args:
            onnx: the other tensor.
            dtype: its dtype in Keras; by default the dtype of this value.
        """
        return dataclasses.replace(self, onnx=onnx, dtype=dtype or self.dtype)


def stored_dtype(dtype: str) -> str:
    """The dtype in the file. Every float dtype is "float32": variables are float32 in mixed precision too."""
    return "float32" if dtype in ("float16", "bfloat16", "float64") else dtype


def keras_order(rank: int) -> Order:
    """The order of Keras: (0, 1, 2, ...)."""
    return tuple(range(rank))


def channels_first(rank: int, channel_axis: int = -1) -> Order:
    """The order that stores `channel_axis` right after the batch axis."""
    channel_axis %= rank
    return (0, channel_axis, *(a for a in range(1, rank) if a != channel_axis))


def moves_no_data(shape: Shape, old: Order, new: Order) -> bool:
    """Whether reordering a tensor of Keras' `shape` moves axes of size 1 only: a Reshape can then do it."""

    def moving(order: Order) -> list[int]:
        return [a for a in order if shape[a] != 1]

    return moving(old) == moving(new)


def flattened_permutation(flattened: tuple[Shape, Order]) -> np.ndarray:
    """For each element of a flattened tensor, in stored order, its index in Keras."""
    shape, order = flattened
    if any(d is None for d in shape[1:]):
        raise ValueError(f"A tensor with unknown axes cannot be reordered: {shape}.")
    sizes = [d for d in shape[1:] if d is not None]
    index = np.arange(int(np.prod(sizes))).reshape(sizes)
    return index.transpose([a - 1 for a in order[1:]]).ravel()


def stored_array(array: np.ndarray, like: Value) -> np.ndarray:
    """A constant that Keras broadcasts against `like`, with its axes in the stored order of `like`.

    Args:
        array: its rank is at most `like.rank`.
        like: the value that the constant is combined with.

    Returns:
        The array without leading axes of size 1: a per-channel constant stays a vector where it can.
    """
    array = np.asarray(array)
    if array.ndim == 0:
        return array
    array = array.reshape((1,) * (like.rank - array.ndim) + array.shape)
    if like.flattened is not None and array.shape[-1] > 1:
        array = array[..., flattened_permutation(like.flattened)]
    array = array.transpose(like.order)
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    return array
