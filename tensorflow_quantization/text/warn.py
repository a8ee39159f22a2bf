"""Show our warnings at the user's line, and mute the logs and warnings of other libraries."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator


def warn_user(message: str) -> None:
    """Issues a `UserWarning` that points at the line which called into this package."""
    frame, stacklevel = inspect.currentframe(), 1
    while frame and frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] == __package__.split(".")[0]:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, UserWarning, stacklevel=stacklevel)


@contextlib.contextmanager
def muted(logger: str, level: int) -> Iterator[None]:
    """Mutes the messages of `logger` below `level`; exceptions are raised as usual."""
    other = logging.getLogger(logger)
    before = other.level
    other.setLevel(level)
    try:
        yield
    finally:
        other.setLevel(before)


@contextlib.contextmanager
def converting() -> Iterator[None]:
    """Mutes a warning of NumPy that Keras causes when it converts its variables, and PyTorch's tensors, to arrays.

    To be entered around the conversion only: Python's filters belong to the whole process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield
