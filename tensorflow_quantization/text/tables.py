"""Tables for a terminal, for Markdown and for HTML; the values of a dict for JSON; axes to plot on."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any


def text_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table for a terminal: columns padded to their widest cell, titles underlined."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(titles), *cells]) for i in range(len(titles))]
    lines = [list(titles), ["-" * width for width in widths], *cells]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns the table as Markdown."""
    lines = [list(titles), ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines)


def html_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns the table as HTML."""
    lines = [_html_row("th", titles), *(_html_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def html_summary(
    head: str, titles: Sequence[str], rows: Sequence[Sequence[object]], notes: Sequence[object] = ()
) -> str:
    """Returns a sentence, a table and a list of notes as HTML, the `_repr_html_` of a result."""
    items = "".join(f"<li>{html.escape(str(note))}</li>" for note in notes)
    return f"<p>{html.escape(head)}</p>{html_table(titles, rows)}{items and f'<ol>{items}</ol>'}"


def decibels_text(value: float) -> str:
    """Returns a signal-to-noise ratio in dB as a cell."""
    return f"{value:.1f} dB" if math.isfinite(value) else ("exact" if value > 0 else "no signal")


def more_text(count: int, attribute: str) -> str:
    """Returns where the rows are that a table leaves out: an attribute of the result, and the output with `--json`."""
    return f"and {count} more, in .{attribute} or with --json"


def count_text(count: int | None, counted: str = "") -> str:
    """Returns a number as a cell, in three digits with a prefix of its unit: "1.23 M"; "?" for `None`."""
    if count is None:
        return "?"
    for prefix, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {prefix}{counted}"
    return f"{count} {counted}".rstrip()


def finite(x: Any) -> Any:
    """Returns dicts, lists and tuples for JSON, in which floats that are NaN or infinite are `None`."""
    if isinstance(x, dict):
        return {key: finite(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def axes(rows: int | None = None) -> Any:
    """Returns new axes of Matplotlib, high enough for so many rows; `None` (default): of the usual height.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plot draws with Matplotlib, which is not installed: pip install matplotlib") from error
    return pyplot.subplots(figsize=(7, 5 if rows is None else 1 + 0.25 * rows), layout="constrained")[1]


def _html_row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
