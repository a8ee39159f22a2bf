"""`Activation`: which activation a layer or operation is, or ends with."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.keras_classes import computes_differently, is_of_keras


class Activation(StrEnum):
    """An activation, by its name in `keras.activations`."""

    LINEAR = "linear"
    ELU = "elu"
    EXPONENTIAL = "exponential"
    GELU = "gelu"
    HARD_SILU = "hard_silu"
    LEAKY_RELU = "leaky_relu"
    PRELU = "prelu"
    RELU = "relu"
    RELU6 = "relu6"
    SIGMOID = "sigmoid"
    SILU = "silu"
    SOFTMAX = "softmax"
    SOFTPLUS = "softplus"
    TANH = "tanh"
    #: One that no rule speaks of.
    OTHER = "other"

    @property
    def clips(self) -> bool:
        """Whether it does nothing but to limit values."""
        return self in (Activation.RELU, Activation.RELU6)

    @property
    def is_never_negative(self) -> bool:
        return self in (
            Activation.EXPONENTIAL,
            Activation.RELU,
            Activation.RELU6,
            Activation.SIGMOID,
            Activation.SOFTMAX,
            Activation.SOFTPLUS,
        )


#: Layers, and operations of `keras.ops`, that are always the same activation.
_BY_CLASS = {
    "ELU": Activation.ELU,
    "Elu": Activation.ELU,
    "Gelu": Activation.GELU,
    "LeakyReLU": Activation.LEAKY_RELU,
    "LeakyRelu": Activation.LEAKY_RELU,
    "PReLU": Activation.PRELU,
    "Relu": Activation.RELU,
    "Relu6": Activation.RELU6,
    "Sigmoid": Activation.SIGMOID,
    "Silu": Activation.SILU,
    "Softmax": Activation.SOFTMAX,
    "Tanh": Activation.TANH,
}


def activation_of(operation: keras.Operation) -> Activation | None:
    """The activation that a layer or operation is; `None` if it is none."""
    if isinstance(operation, keras.layers.Activation):
        return _read(operation.activation)
    if isinstance(operation, keras.layers.ReLU):
        if operation.negative_slope or operation.threshold:
            return Activation.LEAKY_RELU
        return {None: Activation.RELU, 6.0: Activation.RELU6}.get(operation.max_value, Activation.OTHER)
    return _of_class(operation.__class__)


@cache
def _of_class(cls: Any) -> Activation | None:
    base = next((base for base in cls.__mro__ if base.__name__ in _BY_CLASS and is_of_keras(base)), None)
    return None if base is None or computes_differently(cls, base) else _BY_CLASS[base.__name__]


def own_activation(operation: keras.Operation) -> Activation:
    """The `activation` argument of a layer that does more; linear if it has none."""
    if activation_of(operation) is not None:
        return Activation.LINEAR
    return _read(getattr(operation, "activation", None))


def is_activation(call: Call) -> bool:
    """Whether a call does nothing but to activate."""
    return activation_of(call.operation) not in (None, Activation.LINEAR)


def last_activation(tensor: Tensor) -> Activation:
    """The activation that computed `tensor`; linear if none did."""
    if tensor.producer is None:
        return Activation.LINEAR
    return activation_of(tensor.producer.operation) or own_activation(tensor.producer.operation)


def _read(function: Any) -> Activation:
    name = "linear" if function is None else getattr(function, "__name__", type(function).__name__)
    return Activation(name) if name in set(Activation) else Activation.OTHER
