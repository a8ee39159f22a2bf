"""The page on errors lists each `raise` of the package, and nothing else."""

import ast
import pathlib

from docs_scripts import DOCS, docs_script

import tensorflow_quantization

generate_errors = docs_script("generate_errors")
ENTRIES = generate_errors.entries()


def test_the_page_on_errors_is_up_to_date():
    assert generate_errors.page() == (DOCS / "errors.md").read_text(), "Run python docs/generate_errors.py"


def test_each_raise_has_an_entry_and_each_entry_a_raise():
    package = pathlib.Path(tensorflow_quantization.__file__).parent
    raised = set()
    for path in [*package.rglob("*.py"), *generate_errors.COMMANDS.rglob("*.py")]:
        name = path.relative_to(package) if path.is_relative_to(package) else path.relative_to(package.parent)
        for node in ast.walk(ast.parse(path.read_text())):
            # Alone, `raise` raises again; the other is for methods that subclasses override.
            if isinstance(node, ast.Raise) and ast.unparse(node) not in ("raise", "raise NotImplementedError"):
                raised.add(f"{name.with_suffix('').as_posix()}:{node.lineno}")
    assert raised == {entry.line for entry in ENTRIES}


def test_each_error_says_something_unless_it_passes_a_reason_on():
    silent = [entry.line for entry in ENTRIES if not entry.message.strip(f"{generate_errors.UNKNOWN} .")]
    passed_on = {"export/litert/exporter", "export/verification/keras_with_integers"}
    passed_on |= {
        "inspection/runtime/onnxruntime_graph",
        "inspection/runtime/openvino_graph",
        "inspection/runtime/runtime_report",
        "text/messages",
        "model/sampling",
        "tensorflow_quantization_cli/arguments",
    }
    assert {line.partition(":")[0] for line in silent} <= passed_on


def test_each_error_is_on_the_page():
    page = (DOCS / "errors.md").read_text()
    shown = [entry for entry in ENTRIES if entry.message != generate_errors.UNKNOWN]
    assert [entry.line for entry in shown if entry.message.replace("|", "\\|") not in page] == []
