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
    "calibration": {"text", "model", "quantizers", "wrappers"},
    "noise": {"text", "model", "quantizers", "wrappers"},
    "accuracy": {"text", "model", "quantizers", "wrappers", "quantize", "calibration", "noise"},
    "training": {"text", "model", "quantizers", "wrappers", "calibration", "noise"},
    "inspection": {"text", "onnx_graph", "model", "quantizers", "wrappers", "targets", "quantize"},
    # A model quantized for one runtime and exported for another is checked against the rules of the latter.
    "export": {"text", "onnx_graph", "model", "quantizers", "wrappers", "targets", "inspection"},
    # The only room that looks at models and at files in their runtime together.
    "comparison": {"text", "onnx_graph", "model", "quantizers", "wrappers", "noise", "accuracy", "export"},
    # Latency is measured on exported files.
    "mixed_precision": {
        "text",
        "onnx_graph",
        "model",
        "quantizers",
        "wrappers",
        "quantize",
        "calibration",
        "noise",
        "export",
    },
    # Shows what the rooms before it found.
    "reporting": {
        "text",
        "onnx_graph",
        "model",
        "quantizers",
        "wrappers",
        "targets",
        "calibration",
        "inspection",
        "export",
        "comparison",
    },
    "legacy": {"text", "model", "quantize", "targets", "wrappers", "export", "calibration"},
    "tfmot": {"text", "model", "quantizers", "wrappers", "targets", "quantize"},
}
#: Modules of other libraries that a room knows nothing of.
FORBIDDEN = {
    room: {"onnx", "onnx_ir", "onnxruntime", "openvino"}
    for room in (
        "text",
        "model",
        "quantizers",
        "wrappers",
        "targets",
        "quantize",
        "calibration",
        "noise",
        "accuracy",
        "training",
        "legacy",
        "tfmot",
    )
}
BACKENDS = {"tensorflow", "jax", "torch"}
#: Modules for one backend, which no other module imports when it is itself imported.
OF_ONE_BACKEND = {"quantizers/torch_kernel"}


class Imports(ast.NodeVisitor):
    """The full names of what a module imports, each with whether it does so when it is itself imported."""

    def __init__(self):
        self.found = []
        self.deferred = 0

    def visit_Import(self, node):
        self.found += [(alias.name, not self.deferred) for alias in node.names]

    def visit_ImportFrom(self, node):
        assert node.level == 0, "imports are absolute"
        self.found += [(f"{node.module}.{alias.name}", not self.deferred) for alias in node.names]

    def visit_FunctionDef(self, node):
        self.deferred += 1
        self.generic_visit(node)
        self.deferred -= 1

    def visit_If(self, node):
        only_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        self.deferred += only_for_types
        self.generic_visit(node)
        self.deferred -= only_for_types


@functools.cache
def modules():
    """What each module of the package imports, by its path in the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        imports = Imports()
        imports.visit(ast.parse(path.read_text()))
        found[path.relative_to(ROOT).with_suffix("").as_posix()] = imports.found
    return found


def room_of(module):
    return module.split("/")[0] if "/" in module else None


def rooms_in(imports):
    for name, _ in imports:
        parts = name.split(".")
        if parts[0] == PACKAGE and len(parts) > 1 and parts[1] in ROOMS:
            yield parts[1]


def test_every_folder_is_a_room():
    assert {room for module in modules() if (room := room_of(module))} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_what_it_may_know(room):
    wrong = {
        (module, other)
        for module, imports in modules().items()
        if room_of(module) == room
        for other in rooms_in(imports)
        if other != room and other not in ROOMS[room]
    }
    assert not wrong


def test_rooms_have_no_cycles():
    graphlib.TopologicalSorter(ROOMS).prepare()  # raises CycleError


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_knows_no_onnx(room):
    wrong = {
        (module, name)
        for module, imports in modules().items()
        if room_of(module) == room
        for name, _ in imports
        if name.split(".")[0] in FORBIDDEN[room]
    }
    assert not wrong


def test_no_backend_is_imported_with_the_package():
    at_import = {
        (module, name) for module, imports in modules().items() for name, is_at_import in imports if is_at_import
    }
    of_backends = {(module, name) for module, name in at_import if name.split(".")[0] in BACKENDS}
    assert {module for module, _ in of_backends} <= OF_ONE_BACKEND
    lazy = {f"{PACKAGE}.{module.replace('/', '.')}" for module in OF_ONE_BACKEND}
    assert not {(module, name) for module, name in at_import if name in lazy or name.rpartition(".")[0] in lazy}


def test_modules_have_no_cycles():
    known = set(modules())
    graph = {}
    for module, imports in modules().items():
        graph[module] = set()
        for name, at_import in imports:
            path = name.removeprefix(f"{PACKAGE}.").replace(".", "/")
            if at_import and name.startswith(f"{PACKAGE}."):
                # `from package.module import name`: the module, or the name if that is one itself.
                found = next((p for p in (path, path.rpartition("/")[0]) if p in known), None)
                if found is not None and found != module:
                    graph[module].add(found)
    graphlib.TopologicalSorter(graph).prepare()
