"""`replacing`: a file is written beside and renamed, so that there is never half a file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


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
