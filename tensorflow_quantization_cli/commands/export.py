"""`export`: a model as a file for a runtime."""

from __future__ import annotations

import argparse
from pathlib import Path

from tensorflow_quantization_cli import arguments, results, start

HELP = "Write a model, float or quantized, as an .onnx file, or a quantized one as a .tflite file."
DESCRIPTION = "The ending of the file says which kind."
USAGE = "MODEL FILE [options]"
EXAMPLES = ("quantized.keras model.onnx", "quantized.keras model.onnx --target openvino --precision float16")
FINDINGS = ""

SUFFIXES = (".onnx", ".tflite")
TARGETS = ("tensorrt", "onnxruntime", "openvino")
PRECISIONS = ("float32", "float16")
INPUT_LAYOUTS = ("channels_last", "channels_first")
OLDEST_OPSET = 13
#: What applies to .onnx files only.
_OF_ONNX = ("target", "opset", "precision", "input_layout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="MODEL", type=arguments.model, help=arguments.MODEL_FILE)
    parser.add_argument(
        "output", metavar="FILE", type=arguments.path, help="the .onnx or .tflite (LiteRT) file to write"
    )
    arguments.add_choice(parser, "--target", TARGETS, "default: the target of quantize_model")
    parser.add_argument("--opset", type=_opset, help="13 or newer; default: the lowest that the model needs")
    arguments.add_choice(parser, "--precision", PRECISIONS, "the type of float operators; default: float32")
    arguments.add_choice(parser, "--input-layout", INPUT_LAYOUTS, "default: channels_last")
    arguments.add_force(parser)
    arguments.add_json(parser)
    arguments.add_loading(parser)


def check_arguments(options: argparse.Namespace) -> None:
    suffix = Path(options.output).suffix
    if suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"The file to write must end in {arguments.one_of(SUFFIXES)}, got {options.output}."
        )
    given = [f"--{name.replace('_', '-')}" for name in _OF_ONNX if getattr(options, name) is not None]
    if suffix == ".tflite" and given:
        raise argparse.ArgumentTypeError(
            f"{', '.join(given)} apply to .onnx files only, and {options.output} is a .tflite file."
        )
    arguments.check_output(options.output, suffix, options.force)


def run(options: argparse.Namespace) -> int:
    package = start.package()
    model = start.load(options.path, options)
    path = Path(options.output)
    with results.written(options.output, options.force) as temporary:
        if path.suffix == ".tflite":
            package.export_litert(model, temporary)
        else:
            given = {name: value for name in _OF_ONNX if (value := getattr(options, name)) is not None}
            package.export_onnx(model, temporary, **given)
    results.show_dict({"output": str(path), "bytes": path.stat().st_size}, str(path), options.json)
    return 0


def _opset(given: str) -> int:
    if not given.isdigit() or int(given) < OLDEST_OPSET:
        raise argparse.ArgumentTypeError(f"An opset is an integer from {OLDEST_OPSET}, got {given}.")
    return int(given)
