"""Shapes of SVG pictures that read well on light and on dark pages: what `draw_*.py` share.

Text stands in boxes of their own colour, and lines and captions have a grey between light and dark.
"""

from __future__ import annotations

import html
import textwrap

GREY = "#808894"
INK = "#1f2430"
#: Fill colours of boxes.
PLAIN, FLOAT, INTEGER, QUANTIZER = "#eceff4", "#dfe3ea", "#9ccfd8", "#f6c177"


def picture(width: float, height: float, title: str, shapes: list[str]) -> str:
    """A whole picture.

    Args:
        width, height: in pixels.
        title: what the picture shows, for those who do not see it.
        shapes: what `box`, `text` and `arrow` return; later ones lie on top.
    """
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
    )
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0.8 L8 4 L0 7.2 z" fill="{GREY}"/></marker></defs>'
    )
    return "\n".join([head, f"<title>{html.escape(title)}</title>", marker, *shapes, "</svg>"]) + "\n"


def box(x: float, y: float, width: float, height: float, fill: str = PLAIN) -> str:
    """A box with round corners, by its upper left corner."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{fill}" stroke="{GREY}" '
        'stroke-width="1"/>'
    )


def text(
    x: float, y: float, words: str, size: float = 13, *, color: str = INK, bold: bool = False, anchor="middle"
) -> str:
    """One line of text on the baseline `y`."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{color}" text-anchor="{anchor}"{weight}>'
        f"{html.escape(words)}</text>"
    )


def paragraph(x: float, y: float, words: str, columns: int, size: float = 11, **options) -> list[str]:
    """Several lines of text of at most `columns` letters; `y` is the first baseline."""
    lines = textwrap.wrap(words, columns)
    return [text(x, y + i * size * 1.3, line, size, **options) for i, line in enumerate(lines)]


def arrow(points: list[tuple[float, float]]) -> str:
    """A line through points, with a tip at its end."""
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{GREY}" stroke-width="1.4" marker-end="url(#tip)"/>'
