"""Prints results, as text or as JSON, and keeps progress apart from them."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[None]:
    """A context in which progress, which libraries print, goes to stderr: stdout holds the result and nothing else."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def verbosity() -> int:
    """Returns what Keras takes as `verbose`: 1, a bar that moves, on a terminal; 2, plain lines, in a log."""
    return 1 if sys.stderr.isatty() else 2


@contextlib.contextmanager
def written(path: str, force: bool) -> Iterator[Path]:
    """Yields where to write a file, which moves to its path at the end; only `force` replaces what is there by then."""
    from tensorflow_quantization.text.replacing import replacing_all

    with replacing_all([Path(path)], replace=force) as (temporary,):
        yield temporary


def show(result: Any, as_json: bool, html: str | None = None) -> None:
    """Prints a result: its text and the name of its HTML report, if there is one, or its `to_dict()` as JSON."""
    from tensorflow_quantization.text.tables import finite

    put(json.dumps(finite(result.to_dict()), indent=2) if as_json else result)
    if html is not None and not as_json:
        put(f"\nHTML report: {html}")


def show_dict(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Prints a result that has no class of its own."""
    put(json.dumps(result, indent=2) if as_json else text)


def put(text: object) -> None:
    """Prints to stdout, at once: at the end of the process, Python would not say what it cannot write."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # nobody reads on
        raise
    except OSError as error:
        raise OSError(f"The output could not be written to stdout: {error.strerror}.") from error


def below(what: str, value: float | None, limit: float | None, unit: str, why: str | None = None) -> bool:
    """Whether a figure is below its limit, `None` for no limit, or there is no figure; then it says so on stderr.

    Args:
        what: the name of the figure.
        value: the figure. It is none if it is `None`, NaN, or infinite, which a ratio without noise is.
        limit: the least that it may be.
        unit: of the figure and the limit; empty if there is none.
        why: why there is no figure, if that is known.
    """
    unit = f" {unit}" if unit else ""
    if limit is None:
        return False
    if value is None or not math.isfinite(value):
        reason = f": {why}" if why else ""
        note(f"{what} could not be had, so the limit of {limit:.4g}{unit} is not met{reason}.")
        return True
    if value >= limit:
        return False
    note(f"{what} is {value:.4g}{unit}, below the limit of {limit:.4g}{unit}.")
    return True


def warn(message: object) -> None:
    """Prints what the user should look at."""
    print(f"tensorflow-quantization: warning: {message}", file=sys.stderr)


def note(message: str) -> None:
    """Prints why the exit status is 1."""
    print(f"tensorflow-quantization: {message}", file=sys.stderr)
