"""Which classes a name stands for, and whether a subclass of a layer still computes the same.

The tables of the package (wrappers, emitters, traits, rules of targets) name classes of Keras. A layer of the user's
that is called like one of them is another layer, so a name counts only for Keras' own classes and their subclasses.
What the user registers under a name counts for every class of that name.
"""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.model.keras_internals import is_of_backend

_PACKAGE = __name__.partition(".")[0]

#: Methods a subclass may override without changing what it computes at inference.
_CONFIGURATION = frozenset(
    {"build", "build_from_config", "get_config", "from_config", "get_build_config", "compute_output_shape"}
    | {"compute_output_spec", "compute_mask", "save_own_variables", "load_own_variables", "add_weight", "quantize"}
)


def is_of_keras(cls: type) -> bool:
    """Whether a class is one of Keras itself, and not one of the user's that happens to be called like it."""
    # On JAX, every layer of Keras has a base of Keras' backend, called JaxLayer, as a layer of Keras is.
    return cls.__module__.startswith("keras.") and not is_of_backend(cls)


def is_of_package(thing: Any) -> bool:
    """Whether a class or function is one of this package, and not one of the user's."""
    return thing.__module__.partition(".")[0] == _PACKAGE


def stands_for(entry: Any, cls: type) -> bool:
    """Whether what is registered under the name of `cls` is meant for `cls`.

    Args:
        entry: the class or function in the registry. One of the package is for Keras' own class, one of the user's for
            any class of that name.
        cls: a class with the name under which `entry` was found.
    """
    return is_of_keras(cls) or not is_of_package(entry)


def keras_class_names(cls: type) -> list[str]:
    """The names of Keras' own classes among `cls` and its bases, nearest first: what our tables may name."""
    return [base.__name__ for base in cls.__mro__ if is_of_keras(base)]


def keras_class_name(cls: type) -> str | None:
    """The name of `cls` if it is Keras' own, `None` if it is the user's: for tables that leave subclasses out."""
    return cls.__name__ if is_of_keras(cls) else None


def class_names_in_spec(cls: type) -> list[str]:
    """The names by which a user may speak of `cls`, nearest class first.

    A name that `keras.layers` has stands for Keras' own layer only; any other also for a class of the user's.
    """
    classes = [base for base in cls.__mro__ if issubclass(base, keras.Operation)]
    return [base.__name__ for base in classes if is_of_keras(base) or not hasattr(keras.layers, base.__name__)]


def resolve_alias(name: str) -> str:
    """The name of Keras' layer class that `name` is an alias of, such as MaxPool2D; any other name unchanged."""
    layer = getattr(keras.layers, name, None)
    return layer.__name__ if isinstance(layer, type) else name


def computes_like(layer: Any, *names: str) -> bool:
    """Whether a layer is of one of Keras' classes of these names, or of a subclass that computes the same."""
    cls = type(layer)
    bases = [base for base in cls.__mro__ if base.__name__ in names and is_of_keras(base)]
    return any(not computes_differently(cls, base) for base in bases)


def computes_differently(cls: type, base: type) -> bool:
    """Whether `cls` overrides a method of `base` other than those of its configuration."""
    for between in cls.__mro__[: cls.__mro__.index(base)]:
        for name, member in vars(between).items():
            dunder = name.startswith("__") and name != "__call__"
            if callable(member) and hasattr(base, name) and not dunder and name not in _CONFIGURATION:
                return True
    return False
