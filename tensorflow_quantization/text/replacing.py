"""`replacing`: a file is written beside and renamed, so that there is never half a file; `check_writable` before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_writable(path: Path, example: str) -> None:
    """Raises an error if no file can be written at `path`.

    Args:
        path: the file to write.
        example: a file name for the message, if `path` is a directory.

    Raises:
        IsADirectoryError, FileNotFoundError, PermissionError: no file can be written there.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file in it, {path / example}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The directory {path.parent} does not exist; create it first.")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PermissionError(f"{path} cannot be written: no permission.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path in a temporary directory next to `path`; at the end its files move next to `path`.

    After an error or an interrupt, an existing file is unchanged, and the temporary directory is removed.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        temporary = Path(directory) / path.name
        yield temporary
        # Move the file of weights first: the model file must not exist without it.
        for written in sorted(Path(directory).iterdir(), key=lambda p: p == temporary):
            os.replace(written, path.parent / written.name)
