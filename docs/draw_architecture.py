"""Draws the rooms of the package and who imports whom, as the source files say.

    python docs/draw_architecture.py

Writes docs/images/architecture.svg. A room is a folder of `tensorflow_quantization`, or a module beside them. An arrow
points from a room to a room that it imports; an arrow that follows from others is left out.
"""

from __future__ import annotations

import ast
import pathlib

import svg

DOCS = pathlib.Path(__file__).parent
PACKAGE = DOCS.parent / "tensorflow_quantization"
PICTURE = DOCS / "images" / "architecture.svg"

WIDTH, BOX_WIDTH, BOX_HEIGHT, GAP = 960, 290, 122, 44


def rooms() -> dict[str, pathlib.Path]:
    """The folders of the package, and the modules beside them that are not private, by name."""
    folders = {path.parent.name: path.parent for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem: path for path in PACKAGE.glob("[!_]*.py")}
    return dict(sorted({**folders, **modules}.items()))


def imports(room: pathlib.Path) -> set[str]:
    """The rooms that the files of a room import, without itself."""
    names = rooms()
    files = room.rglob("*.py") if room.is_dir() else [room]
    found = {name for file in files for name in _imported_by(ast.parse(file.read_text())) if name in names}
    return found - {room.stem}


def _imported_by(tree: ast.Module) -> set[str]:
    """What stands after the name of the package in the imports of a file, up to the next dot."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith(f"{PACKAGE.name}.")}
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
            found.add(node.module.split(".")[1])
    return found


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """How many rooms stand below each: 0 for a room that imports none.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    level: dict[str, int] = {}
    while len(level) < len(edges):
        ready = [room for room, imported in edges.items() if room not in level and imported <= level.keys()]
        if not ready:
            raise ValueError(f"These rooms import each other in a circle: {sorted(edges.keys() - level.keys())}.")
        for room in ready:
            level[room] = max((level[other] + 1 for other in edges[room]), default=0)
    return level


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The edges without those that a longer way implies."""

    def reach(room: str) -> set[str]:
        return edges[room].union(*(reach(other) for other in edges[room]))

    return {room: direct - set().union(*(reach(other) for other in direct)) for room, direct in edges.items()}


def purpose(room: pathlib.Path) -> str:
    """The first line of a room's docstring."""
    file = room / "__init__.py" if room.is_dir() else room
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


def contents(room: pathlib.Path) -> str:
    """The names of a room's modules and folders."""
    if not room.is_dir():
        return ""
    paths = [path for path in room.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return ", ".join(sorted(path.stem for path in paths if not path.stem.startswith("_")))


def picture() -> str:
    """The picture, as SVG."""
    edges = {name: imports(path) for name, path in rooms().items()}
    level = levels(edges)
    top = max(level.values())
    places = {}
    for height in range(top + 1):
        row = [name for name in edges if level[name] == height]
        left = (WIDTH - len(row) * BOX_WIDTH - (len(row) - 1) * GAP / 2) / 2
        for i, name in enumerate(row):
            places[name] = (left + i * (BOX_WIDTH + GAP / 2), 10 + (top - height) * (BOX_HEIGHT + GAP))
    shapes = []
    for name, imported in reduced(edges).items():
        x, y = places[name]
        for other in sorted(imported):
            x1, y1 = places[other]
            shapes.append(svg.arrow([(x + BOX_WIDTH / 2, y + BOX_HEIGHT), (x1 + BOX_WIDTH / 2, y1)]))
    for name, path in rooms().items():
        shapes += _room(name, path, *places[name])
    height = 20 + (top + 1) * BOX_HEIGHT + top * GAP
    return svg.picture(WIDTH, height, "The rooms of tensorflow_quantization and their imports", shapes)


def _room(name: str, path: pathlib.Path, x: float, y: float) -> list[str]:
    middle = x + BOX_WIDTH / 2
    suffix = "/" if path.is_dir() else ".py"
    shapes = [svg.box(x, y, BOX_WIDTH, BOX_HEIGHT), svg.text(middle, y + 21, name + suffix, 14, bold=True)]
    shapes += svg.paragraph(middle, y + 39, purpose(path).replace("`", ""), 48)
    return shapes + svg.paragraph(middle, y + 74, contents(path), 50, 10.5, color="#47608a")


if __name__ == "__main__":
    PICTURE.write_text(picture())
    print(PICTURE)
