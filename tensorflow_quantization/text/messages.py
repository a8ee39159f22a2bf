"""Sentences that several error messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, existing: list[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?" with the existing names closest to `name`; an empty string if none is."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(existing)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def must_be_one_of(argument: str, allowed: Iterable[str], got: object, besides: str = "") -> str:
    """Returns the error message for an argument that is not one of the allowed names.

    Args:
        argument: the name of the argument.
        allowed: the allowed names; the message proposes the closest.
        got: the value that was passed.
        besides: another allowed kind of value, such as "a Target"; default none.
    """
    names = list(allowed)
    choice = ", ".join([*map(repr, names), *([f"or {besides}"] if besides else [])])
    return f"{argument} must be one of {choice}, got {got!r}.{did_you_mean(str(got), names)}"
