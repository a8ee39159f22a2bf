"""The command line, from a `.keras` file and a folder of images to a verified file in integers.

This package is beside `tensorflow_quantization`, because importing that loads Keras and its backend, which takes
seconds. So `--help`, `--version`, completion and a wrong argument answer at once; a command imports the package when it
runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tensorflow_quantization_cli.parser import parse
from tensorflow_quantization_cli.start import plain_warnings, quiet_backend

__all__ = ["main", "quiet_backend", "started_with_the_package"]

#: As a shell reports a process that an interrupt ended.
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the arguments after the program's name; `None` (default): from `sys.argv`.

    Returns:
        The exit status of the process: 0 for success; 1 for findings, or a figure beyond its limit; 2 if a command
        fails, with the reason on stderr; 130 after an interrupt.

    Raises:
        SystemExit: after `--help`, `--version` and a wrong argument, before the package is imported.
    """
    options = parse(arguments)
    try:
        with plain_warnings():
            return options.run(options)
    except (OSError, TypeError, ValueError, ImportError) as error:
        print(f"tensorflow-quantization: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    print("tensorflow-quantization: interrupted.", file=sys.stderr)
    return _INTERRUPTED


def started_with_the_package() -> None:
    """Answer `python -m tensorflow_quantization` as far as possible before the package is imported.

    Python imports a package before its `__main__`. So the package calls this function first, and wrong arguments and
    `--help` end the process here.
    """
    parse(sys.argv[1:])
    try:
        with quiet_backend():
            import keras  # noqa: F401
    except KeyboardInterrupt:
        sys.exit(_interrupted())
