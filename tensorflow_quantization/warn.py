"""Warnings that point at the line of the user."""

from __future__ import annotations

import sys
import warnings


def warn_user(message: str) -> None:
    """A `UserWarning` at the line that called into this package."""
    frame, stacklevel = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __package__:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, UserWarning, stacklevel=stacklevel)
