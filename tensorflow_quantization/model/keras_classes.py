"""Class names: which classes a name stands for, and whether a subclass computes the same as its Keras class.

The tables of the package (wrappers, emitters, traits, rules of targets) name Keras classes. They apply to Keras classes
and their subclasses only: a custom layer can have the name of a Keras layer and compute something else. An entry that
the user registers under a name applies to every class of that name.
"""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.model.keras_internals import is_of_backend

_PACKAGE = __name__.partition(".")[0]

#: Methods that a subclass can override without changing its outputs at inference.
_CONFIGURATION = frozenset(
    {"build", "build_from_config", "get_config", "from_config", "get_build_config", "compute_output_shape"}
    | {"compute_output_spec", "compute_mask", "save_own_variables", "load_own_variables", "add_weight", "quantize"}
)


def is_of_keras(cls: type) -> bool:
    """Returns whether a class is defined by Keras, and is no custom class of the same name."""
    # On JAX, all Keras layers have a backend base class named JaxLayer. It is not the layer `keras.layers.JaxLayer`.
    return cls.__module__.startswith("keras.") and not is_of_backend(cls)


def is_keras_layer(cls: type) -> bool:
    """Returns whether a class is one of `keras.layers`. Some networks of Keras hold layers of their own classes."""
    return getattr(keras.layers, cls.__name__, None) is cls


def is_of_package(thing: Any) -> bool:
    """Returns whether a class or function is defined by this package, and not by the user."""
    return thing.__module__.partition(".")[0] == _PACKAGE


def stands_for(entry: Any, cls: type) -> bool:
    """Returns whether an entry of a registry applies to `cls`.

    Args:
        entry: a class or function, registered under the name of `cls`. An entry of this package applies to the Keras
            class only; an entry of the user applies to any class of that name.
        cls: the class.
    """
    return is_of_keras(cls) or not is_of_package(entry)


def keras_class_names(cls: type) -> list[str]:
    """Returns the names of the Keras classes among `cls` and its bases, nearest first. Our tables name these."""
    return [base.__name__ for base in cls.__mro__ if is_of_keras(base)]


def keras_class_name(cls: type) -> str | None:
    """Returns the name of `cls` if it is a Keras class, else `None`. For tables that exclude subclasses."""
    return cls.__name__ if is_of_keras(cls) else None


def class_names_in_spec(cls: type) -> list[str]:
    """Returns the class names in a spec that match `cls`, nearest class first.

    A name in `keras.layers` matches the Keras layer and its subclasses only. Other names also match custom classes.
    """
    classes = [base for base in cls.__mro__ if issubclass(base, keras.Operation)]
    return [base.__name__ for base in classes if is_of_keras(base) or not hasattr(keras.layers, base.__name__)]


def resolve_alias(name: str) -> str:
    """Returns the class name for an alias of a Keras layer: MaxPooling2D for MaxPool2D. Other names are unchanged."""
    layer = getattr(keras.layers, name, None)
    return layer.__name__ if isinstance(layer, type) else name


def computes_like(layer: Any, *names: str) -> bool:
    """Returns whether a layer is an instance of a Keras class in `names` and computes the same as this class."""
    cls = type(layer)
    bases = [base for base in cls.__mro__ if base.__name__ in names and is_of_keras(base)]
    return any(not computes_differently(cls, base) for base in bases)


def computes_differently(cls: type, base: type) -> bool:
    """Returns whether `cls` overrides a method of `base` that may change its outputs, see `_CONFIGURATION`."""
    for between in cls.__mro__[: cls.__mro__.index(base)]:
        for name, member in vars(between).items():
            dunder = name.startswith("__") and name != "__call__"
            if callable(member) and hasattr(base, name) and not dunder and name not in _CONFIGURATION:
                return True
    return False
