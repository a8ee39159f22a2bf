"""The command line, from a `.keras` file and a folder of images to a verified file in integers.

This package is beside `tensorflow_quantization`, because importing that loads Keras and its backend, which takes
seconds. So `--help`, `--version`, completion and a wrong argument answer at once; a command imports the package when it
runs.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from tensorflow_quantization_cli.parser import parse
from tensorflow_quantization_cli.start import ENDING, plain_warnings, quiet_backend

__all__ = ["main", "quiet_backend", "started_with_the_package"]

#: What ends a command with its message; any other exception is a fault of the package.
_FAILURES = (OSError, TypeError, ValueError, ImportError)
_FAILED = 2
#: As a shell reports a process that SIGINT or SIGTERM ended.
_INTERRUPTED, _TERMINATED = 130, 143
#: Seconds until a callback of Python has ended.
_SOON = 0.05


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as an interrupt does: temporary files are removed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the arguments after the program's name; `None` (default): from `sys.argv`.

    Returns:
        The exit status of the process: 0 for success; 1 for findings, or a figure beyond its limit; 2 if a command
        fails, with the reason on stderr; 130 after an interrupt; 143 after SIGTERM or SIGHUP.

    Raises:
        SystemExit: after `--help`, `--version` and a wrong argument, before the package is imported.
    """
    options = parse(arguments)
    try:
        with _signals_interrupt(), _no_interrupt_lost(), plain_warnings():
            return options.run(options)
    except _FAILURES as error:
        return _failed(error)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)


def _failed(error: Exception) -> int:
    print(f"tensorflow-quantization: {error}", file=sys.stderr)
    return _FAILED


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    terminated = isinstance(interrupt, _Terminated)
    print(f"tensorflow-quantization: {'terminated' if terminated else 'interrupted'}.", file=sys.stderr)
    return _TERMINATED if terminated else _INTERRUPTED


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP raise `_Terminated`, unless a program that calls `main` handles them."""

    def interrupt(*of_signal: object) -> None:
        raise _Terminated("The process was asked to end.")

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
            number = signal.SIGTERM if issubclass(unraisable.exc_type, _Terminated) else signal.SIGINT
            threading.Timer(_SOON, _thread.interrupt_main, [number]).start()
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
