"""`check`: the rules of a runtime for a file."""

from __future__ import annotations

import argparse

from tensorflow_quantization_cli import arguments, results, start

HELP = "Check an .onnx file against the rules of a runtime, without the runtime."
DESCRIPTION = """\
Any tool may have written the file. An error is what the runtime rejects or
computes wrongly; a warning is what it runs in float, or slower than it could."""
USAGE = "FILE [options]"
EXAMPLES = ("model.onnx", "model.onnx --target tensorrt --strict --json")
FINDINGS = "the file breaks a rule of severity error; with --strict, also a warning"

TARGETS = ("tensorrt", "onnxruntime", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FILE", type=arguments.file, help="an .onnx file")
    arguments.add_choice(parser, "--target", TARGETS, "default: the target in the file, or tensorrt")
    parser.add_argument("--strict", action="store_true", help="warnings count, too")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    report = start.package().check_onnx(options.path, options.target)
    results.show(report, options.json)
    return int(bool(report.errors or (options.strict and report.warnings)))
