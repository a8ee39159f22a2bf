"""Show our warnings at the user's line, and mute the logs and warnings of other libraries."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

#: Two redirections at once would restore stderr to the wrong file.
_REDIRECTING = threading.Lock()
#: The messages that were given in the context of `each_warning_once`; `None`: there is none.
_GIVEN: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("given", default=None)


def warn_user(message: str) -> None:
    """Issues a `UserWarning` that points at the line which called into this package."""
    given = _GIVEN.get()
    if given is not None:
        if message in given:
            return
        given.add(message)
    frame, stacklevel = inspect.currentframe(), 1
    while frame and frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] == __package__.split(".")[0]:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, UserWarning, stacklevel=stacklevel)


@contextlib.contextmanager
def each_warning_once() -> Iterator[None]:
    """Gives each warning of this package once in the context, however often it quantizes the same model."""
    token = _GIVEN.set(set() if _GIVEN.get() is None else _GIVEN.get())
    try:
        yield
    finally:
        _GIVEN.reset(token)


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


@contextlib.contextmanager
def without_note(start: str) -> Iterator[None]:
    """Leaves out lines that native code writes to stderr in the context, if they begin with `start`.

    Other lines, also of other threads, are written after the context, so it is for one short call.
    """
    with _REDIRECTING, tempfile.TemporaryFile() as held:
        try:
            stderr = os.dup(2)
        except OSError:  # the process has no stderr
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not line.startswith(start.encode()):
                    os.write(2, line)
