"""Sentences that error messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, existing: list[str]) -> str:
    """A sentence with the existing names closest to `name`, or an empty string. Starts with a space."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(existing)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def must_be_one_of(argument: str, allowed: Iterable[str], got: object, besides: str = "") -> str:
    """What to say of an argument that is none of a few names, with the closest of these.

    Args:
        argument: its name.
        allowed: the names.
        got: what was passed.
        besides: what else is allowed, a clause such as "a Target".
    """
    names = list(allowed)
    choice = ", ".join([*map(repr, names), *([f"or {besides}"] if besides else [])])
    return f"{argument} must be one of {choice}, got {got!r}.{did_you_mean(str(got), names)}"
