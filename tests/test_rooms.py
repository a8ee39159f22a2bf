"""The rooms of the package import one another in one direction only, as the architecture page says."""

import ast
import functools
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "tensorflow_quantization"
PACKAGE = ROOT.name
#: The rooms, with what each may import. `export` has the inner rooms onnx, litert and verification, which share it.
ROOMS = {
    "text": set(),
    "onnx_graph": {"text"},
    "model": {"text"},
    "quantizers": {"text"},
    "wrappers": {"text", "model", "quantizers"},
    "targets": {"text", "model", "quantizers"},
    "quantize": {"text", "model", "quantizers", "wrappers", "targets"},
    "calibration": {"text", "model", "quantizers"},
    "inspection": {"text", "onnx_graph", "model", "quantizers", "wrappers", "targets", "quantize"},
    # A file for another runtime than that of the model is held against the rules.
    "export": {"text", "onnx_graph", "model", "quantizers", "wrappers", "targets", "inspection"},
    "legacy": {"text", "model", "quantize", "targets", "wrappers", "export", "calibration"},
}
#: Modules of other libraries that a room knows nothing of.
FORBIDDEN = {
    room: {"onnx", "onnx_ir", "onnxruntime", "openvino"}
    for room in ("text", "model", "quantizers", "wrappers", "targets", "quantize", "calibration", "legacy")
}
BACKENDS = {"tensorflow", "jax", "torch"}


@functools.cache
def modules():
    return {
        path.relative_to(ROOT).with_suffix("").as_posix(): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")
    }


def imported(tree):
    """The full names of what a module imports, with whether it does so when it is itself imported."""
    top = set(ast.walk(ast.Module([n for n in tree.body if not _is_type_checking(n)], [])))
    inside = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node in top and node not in inside) for name in names)


def _is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room_of(module):
    return module.split("/")[0] if "/" in module else None


def own_imports(tree):
    for name, _ in imported(tree):
        parts = name.split(".")
        if parts[0] == PACKAGE and len(parts) > 1 and parts[1] in ROOMS:
            yield parts[1]


def test_every_folder_is_a_room():
    assert {room for module in modules() if (room := room_of(module))} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_what_it_may_know(room):
    wrong = {
        (module, other)
        for module, tree in modules().items()
        if room_of(module) == room
        for other in own_imports(tree)
        if other != room and other not in ROOMS[room]
    }
    assert not wrong


def test_rooms_have_no_cycles():
    graphlib.TopologicalSorter(ROOMS).prepare()  # raises CycleError


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_knows_no_onnx(room):
    wrong = {
        (module, name)
        for module, tree in modules().items()
        if room_of(module) == room
        for name, _ in imported(tree)
        if name.split(".")[0] in FORBIDDEN[room]
    }
    assert not wrong


def test_no_backend_is_imported_with_the_package():
    wrong = {
        (module, name)
        for module, tree in modules().items()
        for name, at_import in imported(tree)
        if at_import and name.split(".")[0] in BACKENDS
    }
    assert not wrong


def test_modules_have_no_cycles():
    known = set(modules())
    graph = {}
    for module, tree in modules().items():
        graph[module] = set()
        for name, at_import in imported(tree):
            path = name.removeprefix(f"{PACKAGE}.").replace(".", "/")
            if at_import and name.startswith(f"{PACKAGE}."):
                # `from package.module import name`: the module, or the name if that is one itself.
                found = next((p for p in (path, path.rpartition("/")[0]) if p in known), None)
                if found is not None and found != module:
                    graph[module].add(found)
    graphlib.TopologicalSorter(graph).prepare()
