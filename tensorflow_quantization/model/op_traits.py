"""`Trait`: what a layer or operation of Keras does, in one table by class name.

The table applies to Keras classes, and to subclasses that compute the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag, auto
from functools import cache
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.keras_classes import computes_differently, is_of_keras
from tensorflow_quantization.model.sizes import essence


class Trait(Flag):
    """What an operation does at inference."""

    #: Every value of the output is a value of the input, or a zero of padding.
    MOVES_DATA = auto()
    #: Returns its input.
    IS_IDENTITY = auto()
    #: Multiplies its input by its own weights. The only activation is its `activation` argument.
    MULTIPLIES_BY_WEIGHTS = auto()
    #: A convolution of any kind.
    CONVOLVES = auto()
    #: Two convolutions in one layer: depthwise, then pointwise.
    HAS_INNER_PRODUCT = auto()
    #: A matmul of an activation and a weight.
    IS_MATRIX_PRODUCT = auto()
    #: Normalizes each channel by constants.
    NORMALIZES = auto()
    #: Multiplies each channel by a constant and adds another constant.
    SCALES_CHANNELS = auto()
    #: Adds its inputs.
    ADDS = auto()
    #: Concatenates its inputs along an axis.
    JOINS = auto()
    #: Each value of the output is a value of one of its inputs or of a constant: the largest, for example.
    SELECTS = auto()
    #: Divides its first input by its second.
    DIVIDES = auto()
    #: Combines two inputs, or more, into one output. In an operation of `keras.ops`, one input can be a constant.
    MERGES = auto()
    #: A matmul of two inputs.
    MULTIPLIES_TENSORS = auto()
    #: Attention: multiplies probabilities by values, and most kinds queries by keys.
    ATTENDS = auto()
    #: Attention that first projects its inputs by matrices.
    PROJECTS = auto()
    #: Computes each channel alone, and a positive factor of a channel is a factor of its output.
    KEEPS_CHANNEL_FACTORS = auto()


NO_TRAITS = Trait(0)


def _named(names: str, traits: Trait) -> dict[str, Trait]:
    return dict.fromkeys(names.split(), traits)


def _by_rank(ranks: Iterable[int], names: str, traits: Trait) -> dict[str, Trait]:
    return {name.replace("#", str(rank)): traits for rank in ranks for name in names.split()}


_CONVOLUTION = Trait.CONVOLVES | Trait.MULTIPLIES_BY_WEIGHTS
_ATTENTION = Trait.ATTENDS | Trait.PROJECTS | Trait.MULTIPLIES_BY_WEIGHTS

#: Class name, of a layer or of an operation of `keras.ops`, to traits.
_TRAITS: dict[str, Trait] = {
    **_by_rank((1, 2, 3), "Conv#D Conv#DTranspose", _CONVOLUTION),
    **_by_rank((1, 2), "DepthwiseConv#D", _CONVOLUTION),
    **_by_rank((1, 2), "SeparableConv#D", _CONVOLUTION | Trait.HAS_INNER_PRODUCT),
    **_named("Dense EinsumDense", Trait.MULTIPLIES_BY_WEIGHTS | Trait.IS_MATRIX_PRODUCT),
    **_named("AdditiveAttention Attention", Trait.ATTENDS),
    **_named("GroupedQueryAttention MultiHeadAttention", _ATTENTION),
    **_named("Dot Einsum Matmul", Trait.MULTIPLIES_TENSORS),
    "BatchNormalization": Trait.NORMALIZES | Trait.SCALES_CHANNELS,
    **_named("Normalization Rescaling", Trait.SCALES_CHANNELS),
    "Add": Trait.ADDS | Trait.MERGES,
    "Concatenate": Trait.JOINS | Trait.MERGES,
    **_named("Average Multiply Subtract", Trait.MERGES),
    **_named("Divide TrueDivide", Trait.DIVIDES | Trait.MERGES),
    **_named("Maximum Minimum Stack", Trait.SELECTS | Trait.MERGES),
    **_named("Clip Where", Trait.SELECTS),
    **_named(
        "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity",
        Trait.IS_IDENTITY | Trait.MOVES_DATA | Trait.KEEPS_CHANNEL_FACTORS,
    ),
    **_by_rank((1, 2, 3), "SpatialDropout#D", Trait.IS_IDENTITY | Trait.MOVES_DATA | Trait.KEEPS_CHANNEL_FACTORS),
    **_by_rank((1, 2), "Cropping#D", Trait.MOVES_DATA | Trait.KEEPS_CHANNEL_FACTORS),
    **_by_rank((1, 2, 3), "MaxPooling#D ZeroPadding#D", Trait.MOVES_DATA | Trait.KEEPS_CHANNEL_FACTORS),
    **_by_rank(
        (1, 2, 3),
        "AveragePooling#D GlobalAveragePooling#D GlobalMaxPooling#D UpSampling#D",
        Trait.KEEPS_CHANNEL_FACTORS,
    ),
    **_named("ExpandDims Flatten GetItem Moveaxis Permute Repeat RepeatVector Reshape", Trait.MOVES_DATA),
    **_named("Split Squeeze Swapaxes Transpose Unstack", Trait.MOVES_DATA),
}


def traits(call: Call) -> Trait:
    """Returns the traits of the layer or operation of `call`."""
    return operation_traits(call.operation)


def operation_traits(operation: keras.Operation) -> Trait:
    """Returns the traits of a layer or operation; none for a custom class that does not compute as its Keras base."""
    return _class_traits(essence(operation).__class__)


@cache
def _class_traits(cls: Any) -> Trait:
    base = next((base for base in cls.__mro__ if base.__name__ in _TRAITS and is_of_keras(base)), None)
    return NO_TRAITS if base is None or computes_differently(cls, base) else _TRAITS[base.__name__]


def is_one_of(call: Call, classes: Iterable[str]) -> bool:
    """Returns whether an operation is an instance of a Keras class in `classes`, subclasses included."""
    return not set(classes).isdisjoint(call.class_names)


def attends(call: Call) -> bool:
    """Returns whether a layer is attention."""
    return Trait.ATTENDS in traits(call)


def factors(call: Call) -> tuple[int, ...]:
    """Returns the indices of the operands that a kernel multiplies: of attention with additive scores, the values."""
    added = is_one_of(call, ["AdditiveAttention"]) or getattr(call.operation, "score_mode", "dot") != "dot"
    return (1,) if attends(call) and added else tuple(range(len(call.operands)))


def reads_factor(call: Call, tensor: Tensor) -> bool:
    """Returns whether a reader of a tensor, or of its moved data, multiplies it, if the reader is attention."""
    return not attends(call) or any(origin(call.operands[i]) is origin(tensor) for i in factors(call))


def multiplies_activations(call: Call) -> bool:
    """Returns whether an operation is a matmul of two float tensors, and not of a tensor and a constant."""
    if Trait.MULTIPLIES_TENSORS not in traits(call):
        return False
    return len(call.operands) == 2 and all(keras.backend.is_float_dtype(x.dtype) for x in call.operands)


def origin(tensor: Tensor) -> Tensor:
    """Returns the tensor from which data movement alone leads to `tensor`; `tensor` itself if nothing moves data."""
    while (call := tensor.producer) is not None and moves_data(call):
        tensor = call.inputs[0]
    return tensor


def moves_data(call: Call) -> bool:
    """Returns whether a call only moves the data of its only input."""
    return Trait.MOVES_DATA in traits(call) and len(call.inputs) == 1
