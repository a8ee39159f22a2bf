"""`Trait`: what a layer or operation of Keras does, in one table by class name.

Only Keras' own classes count by name, and their subclasses while they compute the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag, auto
from functools import cache
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.keras_classes import computes_differently, is_of_keras


class Trait(Flag):
    """What an operation does at inference."""

    #: Every number of the output is a number of the input, or a zero of padding.
    MOVES_DATA = auto()
    #: Returns its input.
    IS_IDENTITY = auto()
    #: Multiplies by weights of its own, and does not activate unless its `activation` says so.
    MULTIPLIES_BY_WEIGHTS = auto()
    #: A convolution of any kind.
    CONVOLVES = auto()
    #: Two convolutions in one layer, depthwise and pointwise.
    HAS_INNER_PRODUCT = auto()
    #: A product of matrices, one of them a weight.
    IS_MATRIX_PRODUCT = auto()
    #: Normalizes each channel with constants.
    NORMALIZES = auto()
    #: Multiplies each channel by a constant and adds one.
    SCALES_CHANNELS = auto()
    #: Adds its inputs.
    ADDS = auto()
    #: Joins its inputs along an axis.
    JOINS = auto()
    #: Combines two inputs into one. As an operation of `keras.ops`, one of the two may be a number.
    MERGES = auto()
    #: Multiplies two inputs as matrices.
    MULTIPLIES_TENSORS = auto()
    #: Multiplies activations within: queries by keys, scores by values.
    ATTENDS = auto()
    #: Attends to projections of its inputs.
    PROJECTS = auto()


NO_TRAITS = Trait(0)


def _named(names: str, traits: Trait) -> dict[str, Trait]:
    return dict.fromkeys(names.split(), traits)


def _by_rank(ranks: Iterable[int], names: str, traits: Trait) -> dict[str, Trait]:
    return {name.replace("#", str(rank)): traits for rank in ranks for name in names.split()}


_CONVOLUTION = Trait.CONVOLVES | Trait.MULTIPLIES_BY_WEIGHTS
_ATTENTION = Trait.ATTENDS | Trait.PROJECTS | Trait.MULTIPLIES_BY_WEIGHTS

#: By class name; of layers and of the operations of `keras.ops`.
_TRAITS: dict[str, Trait] = {
    **_by_rank((1, 2, 3), "Conv#D Conv#DTranspose", _CONVOLUTION),
    **_by_rank((1, 2), "DepthwiseConv#D", _CONVOLUTION),
    **_by_rank((1, 2), "SeparableConv#D", _CONVOLUTION | Trait.HAS_INNER_PRODUCT),
    **_named("Dense EinsumDense", Trait.MULTIPLIES_BY_WEIGHTS | Trait.IS_MATRIX_PRODUCT),
    "Attention": Trait.ATTENDS,
    **_named("GroupedQueryAttention MultiHeadAttention", _ATTENTION),
    **_named("Dot Einsum Matmul", Trait.MULTIPLIES_TENSORS),
    "BatchNormalization": Trait.NORMALIZES | Trait.SCALES_CHANNELS,
    **_named("Normalization Rescaling", Trait.SCALES_CHANNELS),
    "Add": Trait.ADDS | Trait.MERGES,
    "Concatenate": Trait.JOINS | Trait.MERGES,
    **_named("Multiply Subtract", Trait.MERGES),
    **_named(
        "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity",
        Trait.IS_IDENTITY | Trait.MOVES_DATA,
    ),
    **_by_rank((1, 2, 3), "SpatialDropout#D", Trait.IS_IDENTITY | Trait.MOVES_DATA),
    **_by_rank((1, 2), "Cropping#D", Trait.MOVES_DATA),
    **_by_rank((1, 2, 3), "MaxPooling#D ZeroPadding#D", Trait.MOVES_DATA),
    **_named("ExpandDims Flatten GetItem Moveaxis Permute Repeat RepeatVector Reshape", Trait.MOVES_DATA),
    **_named("Split Squeeze Swapaxes Transpose Unstack", Trait.MOVES_DATA),
}


def traits(call: Call) -> Trait:
    """What the layer or operation of `call` does."""
    return operation_traits(call.operation)


def operation_traits(operation: keras.Operation) -> Trait:
    """What a layer or operation does; nothing is known of a class not of Keras, or that overrides how it computes."""
    return _class_traits(operation.__class__)


@cache
def _class_traits(cls: Any) -> Trait:
    base = next((base for base in cls.__mro__ if base.__name__ in _TRAITS and is_of_keras(base)), None)
    return NO_TRAITS if base is None or computes_differently(cls, base) else _TRAITS[base.__name__]


def is_one_of(call: Call, classes: Iterable[str]) -> bool:
    """Whether an operation is of one of Keras' classes of these names, or of a subclass."""
    return not set(classes).isdisjoint(call.class_names)


def attends(call: Call) -> bool:
    """Whether a layer is attention whose scores are products of activations."""
    return Trait.ATTENDS in traits(call) and getattr(call.operation, "score_mode", "dot") == "dot"


def multiplies_activations(call: Call) -> bool:
    """Whether a layer or operation multiplies two tensors as matrices, and not a tensor and a constant."""
    if Trait.MULTIPLIES_TENSORS not in traits(call):
        return False
    return len(call.operands) == 2 and all(keras.backend.is_float_dtype(x.dtype) for x in call.operands)


def origin(tensor: Tensor) -> Tensor:
    """The tensor that holds the values of `tensor` before they were moved."""
    while (call := tensor.producer) is not None and Trait.MOVES_DATA in traits(call) and len(call.inputs) == 1:
        tensor = call.inputs[0]
    return tensor
