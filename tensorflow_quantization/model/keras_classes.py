"""What a class has from its bases: whether a subclass of a layer still computes what that does."""

from __future__ import annotations

from typing import Any

#: Methods a subclass may override without changing what it computes at inference.
_CONFIGURATION = frozenset(
    {"build", "build_from_config", "get_config", "from_config", "get_build_config", "compute_output_shape"}
    | {"compute_output_spec", "compute_mask", "save_own_variables", "load_own_variables", "add_weight", "quantize"}
)


def is_of_keras(cls: type) -> bool:
    """Whether a class is one of Keras itself, and not one of the user's that happens to be called like it."""
    return cls.__module__.startswith("keras.")


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
