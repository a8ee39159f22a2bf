"""Which wrapper a layer gets, and what an operation of a quantized model wraps."""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.model.keras_classes import stands_for
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers.base import SUFFIX, BaseQuantizeWrapper


def find_wrapper(layer: Any) -> type[BaseQuantizeWrapper] | None:
    """Returns the wrapper class for a layer; `None` if neither its class nor a base class has a wrapper.

    The nearest class with a wrapper counts. A wrapper of this package is for the Keras class of its name; a custom
    wrapper is for any class of its name.

    Example:
        >>> import keras
        >>> find_wrapper(keras.layers.Dense(2)).__name__
        'DenseQuantizeWrapper'
    """
    for base in type(layer).__mro__:
        wrapper = BaseQuantizeWrapper.CHILD_WRAPPERS.get(f"{base.__name__}{SUFFIX}")
        if wrapper is not None and stands_for(wrapper, base) and wrapper.suits(layer):
            return wrapper
    return None


def activation_quantizers(operation: Any) -> list[ActivationQuantizer]:
    """Returns the activation quantizers of a wrapper, or an `ActivationQuantizer` as a list; empty for all others."""
    if isinstance(operation, ActivationQuantizer):
        return [operation]
    return operation.activation_quantizers if isinstance(operation, BaseQuantizeWrapper) else []


def inner_layer(operation: Any) -> Any:
    """Returns the layer in a wrapper. Any other operation is returned unchanged."""
    return operation.layer if isinstance(operation, BaseQuantizeWrapper) else operation


def wrappers_in(operation: Any) -> list[BaseQuantizeWrapper]:
    """Returns all wrappers in an operation: the operation itself, if it is a wrapper, and all that it contains."""
    layers = (operation, *sublayers(operation)) if isinstance(operation, keras.layers.Layer) else ()
    return [layer for layer in layers if isinstance(layer, BaseQuantizeWrapper)]
