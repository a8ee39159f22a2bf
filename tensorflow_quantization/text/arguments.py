"""Arguments of public functions: a wrong name gets an error with the right one, and counts are checked."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any, ParamSpec, TypeVar

from tensorflow_quantization.text.messages import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

#: Names that a user may expect, and the arguments that have this meaning where a function has them.
_EXPECTED = {
    "bits": ("weight_bits", "activation_bits"),
    "num_bits": ("weight_bits", "activation_bits"),
    "mode": ("quantization_mode",),
    "spec": ("quantization_spec",),
    "cases": ("custom_qdq_cases",),
    "runtime": ("target", "verify_runtime"),
    "backend": ("target",),
    "calibrator": ("method",),
    "dataset": ("data",),
    "shapes": ("input_shapes",),
    "num_batches": ("steps",),
    "file": ("path",),
    "output_path": ("path",),
    "opset_version": ("opset",),
    "dtype": ("precision", "io_dtype"),
}


def suggests_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function; called with an unknown keyword argument, it raises a `TypeError` that names close ones."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in names:
                known = [repr(other) for other in _EXPECTED.get(name, ()) if other in names]
                hint = f" Did you mean {' or '.join(known)}?" if known else did_you_mean(name, names)
                raise TypeError(f"{function.__qualname__} has no argument {name!r}.{hint}")
        return function(*args, **kwargs)

    return checked


def check_count(argument: str, value: Any) -> None:
    """Raises if an argument is neither a number of things, at least one, nor `None`.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be an int or None, got {value!r}.")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, got {value}.")
