"""The command line: `tensorflow-quantization check model.onnx`, and commands to report, describe, compare and export.

This module is outside the package, because importing the package loads Keras and its backend, which takes seconds.
So `--help`, `--version` and a wrong argument answer at once; a command imports the package when it runs.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

#: What the options take. A test compares it with the arguments that the functions accept.
CHECK_TARGETS = ("tensorrt", "onnxruntime", "openvino")
REPORT_RUNTIMES = ("onnxruntime", "openvino", "tensorrt")
COMPARE_RUNTIMES = ("onnxruntime", "openvino")
EXPORT_SUFFIXES = (".onnx", ".tflite")
EXPORT_TARGETS = ("tensorrt", "onnxruntime", "openvino")
PRECISIONS = ("float32", "float16")
INPUT_LAYOUTS = ("channels_last", "channels_first")
OLDEST_OPSET = 13

_PACKAGE = Path(__file__).with_name("tensorflow_quantization")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the arguments after the program's name; `None` (default): from `sys.argv`.

    Returns:
        The exit status of the process: 0 for success; 1 if `check` finds errors; 2 if a command fails, with the reason
        on stderr.

    Raises:
        SystemExit: after `--help`, `--version` and a wrong argument, before the package is imported.
    """
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    command: Callable[..., int] = options.pop("command")
    try:
        return command(**options)
    except (OSError, TypeError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _check(path: str, target: str | None) -> int:
    report = _package().check_onnx(path, target)
    print(report)
    return 0 if not report.errors else 1


def _report(path: str, runtime: str, input_shape: list[tuple[str, tuple[int, ...]]], **options: Any) -> int:
    print(_package().runtime_report(path, runtime, dict(input_shape) or None, **options))
    return 0


def _describe(path: str, trust: bool) -> int:
    print(_package().describe(_load(path, trust)))
    return 0


def _compare(path: str, quantized: str, data: str, trust: bool, **options: Any) -> int:
    package = _package()
    import numpy as np

    models = (_load(name, trust) for name in (path, quantized))
    print(package.compare(*models, np.load(data, allow_pickle=False), **options))
    return 0


def _export(path: str, output: str, trust: bool, **options: Any) -> int:
    suffix = Path(output).suffix
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if suffix == ".tflite" and given:
        raise ValueError(f"{', '.join(given)} apply to .onnx files only, and {output} is a .tflite file.")
    package = _package()
    model = _load(path, trust)
    if suffix == ".tflite":
        print(package.export_litert(model, output))
    else:
        print(package.export_onnx(model, output, **{k: v for k, v in options.items() if v is not None}))
    return 0


def _package() -> Any:
    """Import the package, and with it Keras and a backend."""
    with quiet_backend():
        import tensorflow_quantization
    return tensorflow_quantization


def _load(path: str, trust: bool) -> keras.Model:
    from tensorflow_quantization.model.files import load_model

    return load_model(path, trusted=trust)


def started_with_the_package() -> None:
    """Answer `python -m tensorflow_quantization` as far as possible before the package is imported.

    Python imports a package before its `__main__`. So the package calls this function first, and wrong arguments and
    `--help` end the process here.
    """
    _parser().parse_args(sys.argv[1:])
    with quiet_backend():
        import keras  # noqa: F401


@contextmanager
def quiet_backend() -> Iterator[None]:
    """A context in which TensorFlow's libraries write no notes to stderr when Keras is first imported.

    Errors of the import are raised as usual. A TF_CPP_MIN_LOG_LEVEL that the user set is not changed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        yield
        return
    # The libraries write some notes before they read the level, and not through Python's sys.stderr.
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _version() -> str:
    """The version of the package, read without importing it."""
    return runpy.run_path(str(_PACKAGE / "_version.py"))["__version__"]


def _name(allowed: Sequence[str]) -> Callable[[str], str]:
    """The check of an option that takes one of some names."""

    def check(given: str) -> str:
        if given not in allowed:
            must_be_one_of = runpy.run_path(str(_PACKAGE / "text" / "messages.py"))["must_be_one_of"]
            raise argparse.ArgumentTypeError(must_be_one_of("the value", allowed, given))
        return given

    return check


def _file(given: str) -> str:
    if not Path(given).exists():
        raise argparse.ArgumentTypeError(f"There is no file {given}.")
    return given


def _output(given: str) -> str:
    path = Path(given)
    if path.suffix not in EXPORT_SUFFIXES:
        raise argparse.ArgumentTypeError(f"The file to write must end in {_one_of(EXPORT_SUFFIXES)}, got {given}.")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"The directory {path.parent} does not exist; create it first.")
    return given


def _shape(given: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = given.rpartition(":")
    if not name or not all(size.isdigit() for size in sizes.split("x")):
        raise argparse.ArgumentTypeError(f"A shape is an input, a colon and its sizes, image:1x224x224x3, got {given}.")
    return name, tuple(int(size) for size in sizes.split("x"))


def _opset(given: str) -> int:
    if not given.isdigit() or int(given) < OLDEST_OPSET:
        raise argparse.ArgumentTypeError(f"An opset is an integer from {OLDEST_OPSET}, got {given}.")
    return int(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tensorflow-quantization", description="Quantized Keras models and ONNX files.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[..., int], help: str, path: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        sub.add_argument("path", help=path, type=_file)
        return sub

    sub = add(
        "check", _check, "Check an .onnx file against the rules of a runtime; exits with 1 if it breaks a rule.", "file"
    )
    sub.add_argument(
        "--target",
        type=_name(CHECK_TARGETS),
        help=f"{_one_of(CHECK_TARGETS)}; default: the target in the file, or tensorrt",
    )
    sub = add("report", _report, "List the operators of an .onnx file that a runtime runs in integers here.", "file")
    sub.add_argument(
        "--runtime",
        type=_name(REPORT_RUNTIMES),
        default="onnxruntime",
        help=f"{_one_of(REPORT_RUNTIMES)}; default: %(default)s",
    )
    sub.add_argument(
        "--input-shape",
        type=_shape,
        action="append",
        default=[],
        metavar="NAME:SIZES",
        help="the shape of an input, for example image:1x224x224x3; once for each input with unknown sizes besides the "
        "first",
    )
    sub.add_argument("--compute-capability", help="for tensorrt, the GPU to build for, for example 8.6; default: any")
    described = add(
        "describe",
        _describe,
        "List the layers of a model: quantizers and ranges, and why each layer is quantized or not.",
        "a .keras file",
    )
    compared = add(
        "compare",
        _compare,
        "Name the layer of a quantized model that loses accuracy, and what to do about it.",
        "the .keras file of the float model",
    )
    compared.add_argument("quantized", type=_file, help="the .keras file of the quantized model")
    compared.add_argument("data", type=_file, help="an .npy file with samples as in use, an array as predict takes it")
    compared.add_argument("--file", type=_file, help="the exported file: compare the tensors in its runtime, too")
    compared.add_argument(
        "--runtime", type=_name(COMPARE_RUNTIMES), help=f"{_one_of(COMPARE_RUNTIMES)}, for an .onnx file"
    )
    sub = add("export", _export, "Write a model as an .onnx or .tflite file.", "a .keras file")
    for reader in (described, compared, sub):
        reader.add_argument(
            "--trust",
            action="store_true",
            help="run the Python code of Lambda layers in the file; only for a file whose origin you trust",
        )
    sub.add_argument(
        "output", type=_output, help="the file to write; its suffix says which kind, .onnx or .tflite (LiteRT)"
    )
    sub.add_argument(
        "--target", type=_name(EXPORT_TARGETS), help=f"{_one_of(EXPORT_TARGETS)}; default: the target of quantize_model"
    )
    sub.add_argument("--opset", type=_opset, help="13 or newer; default: the lowest that the model needs")
    sub.add_argument(
        "--precision",
        type=_name(PRECISIONS),
        help=f"{_one_of(PRECISIONS)}, the type of float operators; default: float32",
    )
    sub.add_argument(
        "--input-layout", type=_name(INPUT_LAYOUTS), help=f"{_one_of(INPUT_LAYOUTS)}; default: channels_last"
    )
    return parser


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


if __name__ == "__main__":
    sys.exit(main())
