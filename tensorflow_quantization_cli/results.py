"""Prints results, as text or as JSON, and keeps progress apart from them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[None]:
    """A context in which progress, which libraries print, goes to stderr: stdout holds the result and nothing else."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def verbosity() -> int:
    """Returns what Keras takes as `verbose`: 1, a bar that moves, on a terminal; 2, plain lines, in a log."""
    return 1 if sys.stderr.isatty() else 2


def show(result: Any, as_json: bool, html: str | None = None) -> None:
    """Prints a result: its text and the name of its HTML report, if there is one, or its `to_dict()` as JSON."""
    from tensorflow_quantization.text.tables import finite

    print(json.dumps(finite(result.to_dict()), indent=2) if as_json else result)
    if html is not None and not as_json:
        print(f"\nHTML report: {html}")


def show_dict(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Prints a result that has no class of its own."""
    print(json.dumps(result, indent=2) if as_json else text)


def below(what: str, value: float | None, limit: float | None, unit: str) -> bool:
    """Whether a figure is below its limit, `None` for no limit, or is unknown, `None`; then it says so on stderr."""
    if limit is None or (value is not None and value >= limit):
        return False
    unit = f" {unit}" if unit else ""
    if value is None:
        note(f"{what} is unknown, so it may be below the limit of {limit:.4g}{unit}.")
        return True
    note(f"{what} is {value:.4g}{unit}, below the limit of {limit:.4g}{unit}.")
    return True


def warn(message: object) -> None:
    """Prints what the user should look at."""
    print(f"tensorflow-quantization: warning: {message}", file=sys.stderr)


def note(message: str) -> None:
    """Prints why the exit status is 1."""
    print(f"tensorflow-quantization: {message}", file=sys.stderr)
