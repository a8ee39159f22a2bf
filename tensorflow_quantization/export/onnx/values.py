"""`Value`: a tensor of the ONNX graph that knows where each of Keras' axes went.

A convolution wants channels first, most Keras models hold them last. Rather than transposing back and forth, a value
carries the order in which its axes are stored, and each emitter says what order it wants.
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
    """A tensor as an emitter sees it.

    Attributes:
        onnx: the tensor in the ONNX graph.
        shape: in Keras' order; `None` where dynamic.
        dtype: Keras' name of it; every floating type is stored as "float32".
        order: stored axis i is Keras' axis order[i]; (0, 3, 1, 2) for an image that Keras holds channels last and
            the file channels first. Keras' own order if left out.
        flattened: shape and order that the last axis of a rank-2 tensor had before it was flattened, if its elements
            are thereby in another order than in Keras. What follows is then a Dense layer, which permutes its rows.
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
        return len(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether it is stored exactly as Keras has it."""
        return self.order == keras_order(self.rank) and self.flattened is None

    @property
    def stored_shape(self) -> Shape:
        return tuple(self.shape[a] for a in self.order)

    def position(self, axis: int) -> int:
        """Where Keras' `axis` is stored."""
        return self.order.index(axis % self.rank)

    def with_onnx(self, onnx: ir.Value, dtype: str | None = None) -> Value:
        """The same description for another tensor: the result of an elementwise operator."""
        return dataclasses.replace(self, onnx=onnx, dtype=dtype or self.dtype)


def stored_dtype(dtype: str) -> str:
    """Mixed precision is computed in float32: that is what the variables are."""
    return "float32" if dtype in ("float16", "bfloat16", "float64") else dtype


def keras_order(rank: int) -> Order:
    return tuple(range(rank))


def channels_first(rank: int, channel_axis: int = -1) -> Order:
    """The order that stores `channel_axis` right after the batch axis."""
    channel_axis %= rank
    return (0, channel_axis, *(a for a in range(1, rank) if a != channel_axis))


def moves_no_data(shape: Shape, old: Order, new: Order) -> bool:
    """Whether reordering a tensor of Keras' `shape` moves axes of size 1 only, so that a Reshape does it."""

    def moving(order: Order) -> list[int]:
        return [a for a in order if shape[a] != 1]

    return moving(old) == moving(new)


def flattened_permutation(flattened: tuple[Shape, Order]) -> np.ndarray:
    """Index in Keras of each element of a flattened tensor, in stored order."""
    shape, order = flattened
    if any(d is None for d in shape[1:]):
        raise ValueError(f"A tensor with unknown axes cannot be reordered: {shape}.")
    sizes = [d for d in shape[1:] if d is not None]
    index = np.arange(int(np.prod(sizes))).reshape(sizes)
    return index.transpose([a - 1 for a in order[1:]]).ravel()


def stored_array(array: np.ndarray, like: Value) -> np.ndarray:
    """A constant that Keras broadcasts against `like`, laid out as `like` is stored; rank at most that of `like`.

    Size-1 axes in front are dropped again, so that a per-channel vector reads as one.
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
