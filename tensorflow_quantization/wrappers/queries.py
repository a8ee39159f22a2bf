"""Which wrapper a layer gets, and what an operation of a quantized model wraps."""

from __future__ import annotations

import sys
from typing import Any

import keras

from tensorflow_quantization.model.keras_classes import is_of_keras, is_of_package, stands_for
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.wrappers.base import SUFFIX, WRAPPERS_OF_PACKAGE, BaseQuantizeWrapper


def find_wrapper(layer: Any) -> type[BaseQuantizeWrapper] | None:
    """Returns the wrapper class for a layer; `None` if neither its class nor a base class has a wrapper.

    The nearest class with a wrapper counts. A wrapper of this package is for the Keras class of its name; a custom
    wrapper is for any class of its name, or for its `layer_class`. If a module has both a wrapper and a custom layer of
    its name, the wrapper is for this layer and not for the Keras class of the same name.

    Examples:
        >>> import keras
        >>> find_wrapper(keras.layers.Dense(2)).__name__
        'DenseQuantizeWrapper'
    """
    for base in type(layer).__mro__:
        name = f"{base.__name__}{SUFFIX}"
        for wrapper in (BaseQuantizeWrapper.CHILD_WRAPPERS.get(name), WRAPPERS_OF_PACKAGE.get(name)):
            if wrapper is None or not stands_for(wrapper, base) or _is_for_another(wrapper, base):
                continue
            if wrapper.suits(layer):
                return wrapper
    return None


def _is_for_another(wrapper: type[BaseQuantizeWrapper], base: type) -> bool:
    """Whether a wrapper of the user's stands beside a custom layer with the name of the Keras class `base`."""
    if not is_of_keras(base) or is_of_package(wrapper) or wrapper.layer_class is not None:
        return False
    beside = getattr(sys.modules.get(wrapper.__module__), base.__name__, None)
    return isinstance(beside, type) and issubclass(beside, keras.layers.Layer) and not issubclass(beside, base)


def activation_quantizers(operation: Any) -> list[ActivationQuantizer]:
    """Returns the activation quantizers of a wrapper, or an `ActivationQuantizer` as a list; empty for all others."""
    if isinstance(operation, ActivationQuantizer):
        return [operation]
    return operation.activation_quantizers if isinstance(operation, BaseQuantizeWrapper) else []


def activation_quantizers_in(operation: Any) -> list[ActivationQuantizer]:
    """Returns the activation quantizers of an operation and of all wrappers in it, each once."""
    found = [*activation_quantizers(operation), *(q for w in wrappers_in(operation) for q in w.activation_quantizers)]
    return list({id(q): q for q in found}.values())


def weight_quantizers_in(operation: Any) -> list[WeightQuantizer]:
    """Returns the weight quantizers of all wrappers in an operation."""
    return [q for wrapper in wrappers_in(operation) for q in wrapper.weight_quantizers.values()]


def output_quantizer(operation: Any) -> ActivationQuantizer | None:
    """Returns what quantizes the output of an operation; an `ActivationQuantizer` is its own."""
    if isinstance(operation, ActivationQuantizer):
        return operation
    return operation.output_quantizer if isinstance(operation, BaseQuantizeWrapper) else None


def inner_layer(operation: Any) -> Any:
    """Returns the layer in a wrapper. Any other operation is returned unchanged."""
    return operation.layer if isinstance(operation, BaseQuantizeWrapper) else operation


def wrappers_in(operation: Any) -> list[BaseQuantizeWrapper]:
    """Returns all wrappers in an operation: the operation itself, if it is a wrapper, and all that it contains."""
    layers = (operation, *sublayers(operation)) if isinstance(operation, keras.layers.Layer) else ()
    return [layer for layer in layers if isinstance(layer, BaseQuantizeWrapper)]
