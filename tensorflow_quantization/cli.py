"""The command line: `tensorflow-quantization check model.onnx`, and others, for those who have a file and no script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from tensorflow_quantization import export, inspection
from tensorflow_quantization._version import __version__
from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.checks.check import RULES
from tensorflow_quantization.inspection.runtime import runtime_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what stands behind the program's name; `None` takes it from `sys.argv`.

    Returns:
        What the process should exit with: 0; 1 where `check` finds errors; 2 where a command cannot be carried out,
        with the reason on stderr.
    """
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    command: Callable[..., int] = options.pop("command")
    try:
        return command(**options)
    except (OSError, TypeError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _check(path: str, target: str) -> int:
    report = check_onnx(path, target)
    print(report)
    return 0 if not report.errors else 1


def _report(path: str, runtime: str) -> int:
    print(runtime_report(path, runtime))
    return 0


def _describe(path: str) -> int:
    print(inspection.describe(_load(path)))
    return 0


def _export(path: str, output: str, **options: Any) -> int:
    model = _load(path)
    if Path(output).suffix == ".tflite":
        given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)} say how an .onnx file is written, and {output} is a .tflite file.")
        print(export_litert(model, output))
    else:
        print(export.export_onnx(model, output, **{k: v for k, v in options.items() if v is not None}))
    return 0


def _load(path: str) -> keras.Model:
    return keras.saving.load_model(path, compile=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tensorflow-quantization", description="Quantized Keras models and ONNX files.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[..., int], help: str, path: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        sub.add_argument("path", help=path)
        return sub

    sub = add(
        "check", _check, "Hold an .onnx file against the rules of a runtime; exits with 1 if it breaks one.", "file"
    )
    sub.add_argument("--target", default="tensorrt", help=f"one of {', '.join(RULES)}; default: %(default)s")
    sub = add("report", _report, "Say what of an .onnx file a runtime computes in integers, on this machine.", "file")
    sub.add_argument("--runtime", default="onnxruntime", help="onnxruntime or openvino; default: %(default)s")
    add(
        "describe",
        _describe,
        "Say what is quantized in a model, with its ranges, and what is not, and why.",
        "a .keras file",
    )
    sub = add("export", _export, "Write a model as an .onnx or .tflite file.", "a .keras file")
    sub.add_argument("output", help="the file to write; its ending decides")
    sub.add_argument("--target", help="tensorrt, onnxruntime or openvino; default: what the model was quantized for")
    sub.add_argument("--opset", type=int, help="13 or newer; default: the least that the model needs")
    sub.add_argument("--precision", help="float32 or float16, of what is not in integers; default: float32")
    sub.add_argument("--input-layout", help="channels_last or channels_first; default: channels_last")
    return parser
