"""The command line, from a `.keras` file and a folder of images to a verified file in integers.

This package is beside `tensorflow_quantization`, because importing that loads Keras and its backend, which takes
seconds. So `--help`, `--version`, completion and a wrong argument answer at once; a command imports the package when it
runs.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from tensorflow_quantization_cli.parser import parse
from tensorflow_quantization_cli.start import ENDING, plain_warnings, quiet_backend

__all__ = ["main", "process", "quiet_backend", "started_with_the_package"]

#: What ends a command with its message; any other exception is a fault of the package.
_FAILURES = (OSError, TypeError, ValueError, ImportError)
_FAILED = 2
#: A shell reports a process that a signal ended with this plus the number of the signal.
_BY_SIGNAL = 128
#: As a shell reports a process that SIGPIPE ended, which is how other programs end if nobody reads their output on: a
#: script with `pipefail` learns that the output is not whole.
_NOT_READ = 141
#: Seconds until a callback of Python has ended.
_SOON = 0.05


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as an interrupt does: temporary files are removed."""

    def __init__(self, number: int):
        super().__init__(f"The process was asked to end, by signal {number}.")
        self.number = number


def process() -> NoReturn:
    """Run the command in `sys.argv`, and end the process.

    After an error or an interrupt it ends at once. TensorFlow reads the samples of `fit` in a thread of its own. When
    Python frees an unfinished training, at the latest at its usual end, it would wait for this thread, which waits for
    Python.
    """
    sys.exit(_run(parse(None), _end_at_once))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the arguments after the program's name; `None` (default): from `sys.argv`.

    Returns:
        The exit status of the process: 0 for success; 1 for findings, or a figure beyond its limit; 2 if a command
        fails, with the reason on stderr; 130, 143 and 129 after an interrupt, SIGTERM and SIGHUP; 141 if nobody reads
        the output on.

    Raises:
        SystemExit: after `--help`, `--version` and a wrong argument, before the package is imported.
    """
    return _run(parse(arguments), int)


def _run(options: argparse.Namespace, end: Callable[[int], int]) -> int:
    """Returns the exit status of a command; after an error or an interrupt, what `end` makes of it."""
    try:
        with _signals_interrupt(), _no_interrupt_lost(), plain_warnings():
            return options.run(options)
    # `end` is called where the error still holds what it interrupted: see `process`.
    except BrokenPipeError:
        return end(_not_read())
    except _FAILURES as error:
        return end(_failed(error))
    except KeyboardInterrupt as interrupt:
        return end(_interrupted(interrupt))


def _end_at_once(status: int) -> NoReturn:
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _failed(error: Exception) -> int:
    print(f"tensorflow-quantization: {error}", file=sys.stderr)
    return _FAILED


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    terminated = isinstance(interrupt, _Terminated)
    print(f"tensorflow-quantization: {'terminated' if terminated else 'interrupted'}.", file=sys.stderr)
    return _BY_SIGNAL + _number(interrupt)


def _number(interrupt: BaseException | None) -> int:
    return interrupt.number if isinstance(interrupt, _Terminated) else signal.SIGINT


def _not_read() -> int:
    """Drops what is left of the output: Python writes it at its end, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return _NOT_READ


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP raise `_Terminated`, unless a program that calls `main` handles them."""

    def interrupt(number: int, frame: object) -> None:
        raise _Terminated(number)

    # Python handles signals in its main thread only.
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [number for number in ENDING if in_main_thread and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """A context in which an interrupt takes effect also if Python ignores its exception, and only prints it.

    Python does so in a callback of a weak reference, of which frameworks have many. The interrupt is raised again once
    the callback has ended.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(_SOON, _thread.interrupt_main, [_number(unraisable.exc_value)]).start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def started_with_the_package() -> None:
    """Answer `python -m tensorflow_quantization` as far as possible before the package is imported.

    Python imports a package before its `__main__`. So the package calls this function first, and wrong arguments and
    `--help` end the process here.
    """
    parse(sys.argv[1:])
    try:
        with quiet_backend():
            import keras  # noqa: F401
    except _FAILURES as error:
        sys.exit(_failed(error))
    except KeyboardInterrupt as interrupt:
        sys.exit(_interrupted(interrupt))
