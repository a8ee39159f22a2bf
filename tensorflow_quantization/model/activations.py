"""`Activation`: the activation that a layer or operation computes, alone or as its last step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.keras_classes import computes_differently, is_of_keras


class Activation(StrEnum):
    """An activation; the value is its name in `keras.activations`."""

    LINEAR = "linear"
    ELU = "elu"
    EXPONENTIAL = "exponential"
    GELU = "gelu"
    HARD_SIGMOID = "hard_sigmoid"
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
    #: Any other activation; no rule is about it.
    OTHER = "other"

    @property
    def clips(self) -> bool:
        """Whether it only clips: y = min(max(x, 0), limit)."""
        return self in (Activation.RELU, Activation.RELU6)

    @property
    def is_never_negative(self) -> bool:
        """Whether its outputs are never negative."""
        return self in (
            Activation.EXPONENTIAL,
            Activation.HARD_SIGMOID,
            Activation.RELU,
            Activation.RELU6,
            Activation.SIGMOID,
            Activation.SOFTMAX,
            Activation.SOFTPLUS,
        )


#: Classes, of layers and of operations of `keras.ops`, that always compute the same activation.
_BY_CLASS = {
    "ELU": Activation.ELU,
    "Elu": Activation.ELU,
    "Gelu": Activation.GELU,
    "HardSigmoid": Activation.HARD_SIGMOID,
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
    """Returns the activation that a layer or operation consists of; `None` if it computes something else."""
    if isinstance(operation, keras.layers.Activation):
        return _read(operation.activation)
    if is_relu(operation):
        if operation.negative_slope or operation.threshold:
            return Activation.LEAKY_RELU
        return {None: Activation.RELU, 6.0: Activation.RELU6}.get(operation.max_value, Activation.OTHER)
    return _of_class(operation.__class__)


def is_relu(operation: keras.Operation) -> bool:
    """Returns whether this is a `ReLU` layer, or the operation of `keras.activations.relu`, with the same arguments."""
    return any(base.__name__ == "ReLU" and is_of_keras(base) for base in operation.__class__.__mro__)


def only_rectifies(layer: keras.layers.Layer) -> bool:
    """Returns whether a call of the layer is Keras' own max(x, 0) and does no more."""
    known = type(layer) in (keras.layers.ReLU, keras.layers.Activation)  # a subclass may do more
    return known and activation_of(layer) is Activation.RELU and layer.activity_regularizer is None


@cache
def _of_class(cls: Any) -> Activation | None:
    base = next((base for base in cls.__mro__ if base.__name__ in _BY_CLASS and is_of_keras(base)), None)
    return None if base is None or computes_differently(cls, base) else _BY_CLASS[base.__name__]


def own_activation(operation: keras.Operation) -> Activation:
    """Returns the `activation` argument of a layer; linear if it has none, or is an activation itself.

    That of a recurrent layer is of a part of each step, not of its outputs.
    """
    if activation_of(operation) is not None or isinstance(operation, keras.layers.RNN):
        return Activation.LINEAR
    return _read(getattr(operation, "activation", None))


def is_activation(call: Call) -> bool:
    """Returns whether a call computes an activation only, and not a linear one."""
    return activation_of(call.operation) not in (None, Activation.LINEAR)


def last_activation(tensor: Tensor) -> Activation:
    """Returns the activation that is the last step in computing `tensor`; linear if there is none."""
    if tensor.producer is None:
        return Activation.LINEAR
    return activation_of(tensor.producer.operation) or own_activation(tensor.producer.operation)


def _read(function: Any) -> Activation:
    name = "linear" if function is None else getattr(function, "__name__", type(function).__name__)
    return Activation(name) if name in set(Activation) else Activation.OTHER


@contextlib.contextmanager
def without_activation(layer: Any) -> Iterator[None]:
    """Leaves out the activation that a layer applies to its result, if any, for the time of the context."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        yield
        return
    layer.activation = keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation
