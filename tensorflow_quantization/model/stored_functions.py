"""`StoredFunction`: an activation function that a file holds as the operations it computes.

Keras stores a function as its name, which it finds in a new process only if the function is registered. The code of a
block gives its layers their functions. Once the block is opened, such a layer is saved without that code.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.model.graph import Tensor
from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.weights import float32_array


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class StoredFunction:
    """A function of a tensor, as a functional model.

    Examples:
        >>> inputs = keras.Input((4,))
        >>> stored = StoredFunction(keras.Model(inputs, inputs * keras.ops.sigmoid(1.7 * inputs), name="quick_gelu"))
        >>> layer = keras.layers.Activation(stored)
        >>> loaded = keras.layers.Activation.from_config(layer.get_config())
        >>> loaded.activation.__name__
        'quick_gelu'

    Args:
        model: the functional model, of operations of `keras.ops`.
        function: the function itself, in the process that has it; `None` (default): `model`.
    """

    def __init__(self, model: keras.Model, function: Callable[[Any], Any] | None = None):
        self.model = model
        self.function = function or model
        self.__name__ = model.name

    def __call__(self, x: Any) -> Any:
        return self.function(x)

    def get_config(self) -> dict[str, Any]:
        return {"model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StoredFunction:
        return cls(keras.saving.deserialize_keras_object(config["model"]))


def store_activation(layer: keras.Operation, output: Tensor) -> None:
    """Makes the `activation` argument of a layer a `StoredFunction` if a file could not hold the function.

    A function that cannot be traced stays as it is, and one that computes something else once it is traced: that reads
    the size of an axis, or draws random numbers.

    Args:
        layer: a layer of Keras, or any other operation.
        output: what the activation returns, a tensor of the shape and dtype of what it reads.
    """
    function = getattr(layer, "activation", None)
    if (
        not isinstance(function, types.FunctionType)
        or (function.__module__ or "").startswith("keras.")
        or not is_of_keras(type(layer))
    ):
        return
    if isinstance(layer, keras.layers.RNN) or keras.saving.get_registered_name(function) != function.__name__:
        return
    inputs = keras.Input(batch_shape=(None,) * len(output.shape), dtype=output.dtype)
    try:
        model = keras.Model(inputs, function(inputs), name=re.sub(r"\W", "_", function.__name__))
        x = np.random.default_rng(0).normal(size=[3] * len(output.shape)).astype(output.dtype)
        expected, got = (float32_array(f(ops.convert_to_tensor(x))) for f in (function, model))
        if not np.allclose(got, expected, 1e-3, 1e-3):
            return
    except Exception:  # the code of the function may raise anything
        return
    layer.activation = StoredFunction(model, function)
