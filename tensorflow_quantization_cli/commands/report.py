"""`report`: what a runtime runs in integers."""

from __future__ import annotations

import argparse

from tensorflow_quantization_cli import arguments, results, start

HELP = "Load an .onnx file in a runtime, and list the operators that do not run in integers."
DESCRIPTION = "TensorRT builds the file without a GPU."
USAGE = "FILE [options]"
EXAMPLES = (
    "model.onnx",
    "model.onnx --runtime openvino --min-integer-share 0.95",
    "model.onnx --html report.html",
    "model.onnx --runtime tensorrt --input-shape image:1x224x224x3 --compute-capability 8.6",
)
FINDINGS = "the share in integers is below --min-integer-share"

RUNTIMES = ("onnxruntime", "openvino", "tensorrt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FILE", type=arguments.file, help="an .onnx file")
    arguments.add_choice(
        parser, "--runtime", RUNTIMES, "default: the target in the file, if it is installed, or onnxruntime"
    )
    arguments.add_input_shape(parser)
    parser.add_argument(
        "--compute-capability", metavar="X.Y", help="for tensorrt, the GPU to build for, for example 8.6; default: any"
    )
    arguments.add_min_share(parser)
    arguments.add_html(parser)
    arguments.add_force(parser)
    arguments.add_json(parser)


def check_arguments(options: argparse.Namespace) -> None:
    if options.html is not None and (options.input_shape or options.compute_capability):
        raise argparse.ArgumentTypeError(
            "--html takes the file as it is: leave out --input-shape, --compute-capability"
        )
    arguments.check_html(options)


def run(options: argparse.Namespace) -> int:
    package = start.package()
    from tensorflow_quantization_cli.files import runtime_of

    runtime = options.runtime or runtime_of(options.path, RUNTIMES)
    shapes = dict(options.input_shape) or None
    report = package.runtime_report(options.path, runtime, shapes, options.compute_capability)
    if options.html is not None:
        with results.written(options.html, options.force) as html:
            package.html_report(html, file=options.path, runtime=runtime)
    results.show(report, options.json, options.html)
    return int(results.below("The share in integers", report.integer_share, options.min_integer_share, ""))
