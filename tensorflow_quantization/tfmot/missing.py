"""Names of TFMOT that this package does not have: an `AttributeError` says what to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def missing(module: str, instead: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a `__getattr__` for a module.

    Args:
        module: the name of the module.
        instead: for each name that TFMOT has in this module and this package does not, what to do.
    """

    def look_up(name: str) -> Any:
        if name in instead:
            raise AttributeError(f"TFMOT's {name} is not in {module}: {instead[name]}.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return look_up
