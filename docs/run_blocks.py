"""Runs the Python blocks of pages, and writes what a block prints into the `text` block that follows it.

    python docs/run_blocks.py docs/reports.md

Run it after a change to what `describe`, `check_onnx` or `runtime_report` print. The tests run the blocks of every page
and compare.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A block, then the text that it prints, if the page shows it.
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
#: Includes an example, which is tested as a script.
_INCLUDE = "--8<--"


@dataclass(frozen=True)
class Block:
    """One Python block of a page.

    Attributes:
        code: what it holds.
        shown: the `text` block that follows it; `None` where none does.
        place: start and end of `shown` in the page.
    """

    code: str
    shown: str | None
    place: tuple[int, int]


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page, in order, without those that include an example."""
    matches = [match for match in _BLOCK.finditer(page.read_text()) if _INCLUDE not in match[1]]
    return [Block(match[1], match[2], match.span(2)) for match in matches]


def run(page: Path, **names: Any) -> list[tuple[Block, str]]:
    """Each block of a page with what it prints, run one after the other in the current directory.

    Args:
        page: a Markdown file.
        names: what the first block finds defined.
    """
    namespace: dict[str, Any] = {"__name__": "page", **names}
    done = []
    for block in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, page.name, "exec"), namespace)
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        done.append((block, "\n".join(lines) + "\n"))
    return done


def update(page: Path) -> None:
    """Write what the blocks print into the page."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    text = page.read_text()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        done = run(page)
    for block, printed in reversed(done):
        if block.shown is not None:
            start, end = block.place
            text = text[:start] + printed + text[end:]
    page.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name in sys.argv[1:]:
        update(Path(name).resolve())
