"""Names of TFMOT that this package does not have: an `AttributeError` says what to use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from tensorflow_quantization.text.messages import did_you_mean


def missing(module: str, instead: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a `__getattr__` for a module.

    Args:
        module: the name of the module.
        instead: for each name that TFMOT has in this module and this package does not, what to do.
    """

    def look_up(name: str) -> Any:
        if name in instead:
            raise AttributeError(f"TFMOT's {name} is not in {module}: {instead[name]}.")
        hint = did_you_mean(name, [known for known in dir(sys.modules[module]) if not known.startswith("_")])
        raise AttributeError(f"module {module!r} has no attribute {name!r}.{hint}")

    return look_up
