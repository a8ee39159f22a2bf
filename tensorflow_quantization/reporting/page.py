"""`page_of`: the contents of a report as one HTML file that needs no network."""

from __future__ import annotations

import html
import json
from importlib.resources import files

from tensorflow_quantization.reporting.contents import Contents

#: The scripts in the order in which they run.
_SCRIPTS = ("dom.js", "histogram.js", "graph.js", "layers.js", "report.js")


def page_of(contents: Contents) -> str:
    """Returns the page. Its data is JSON in the page, and its script writes all of it as text, never as HTML."""
    folder = files(__package__) / "assets"
    parts = {
        "title": html.escape(contents.name),
        "style": (folder / "report.css").read_text(encoding="utf-8"),
        "script": "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        # "</script>" in a name would end the element.
        "data": json.dumps(contents.to_dict(), separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = (folder / "report.html").read_text(encoding="utf-8")
    before, *marked = page.split("{{")
    return before + "".join(parts[name] + after for name, _, after in (part.partition("}}") for part in marked))
