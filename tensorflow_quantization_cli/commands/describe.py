"""`describe`: the quantizers of a model."""

from __future__ import annotations

import argparse

from tensorflow_quantization_cli import arguments, results, start

HELP = "List the layers of a model: quantizers and ranges, and why each layer is quantized or not."
DESCRIPTION = ""
USAGE = "MODEL [options]"
EXAMPLES = ("quantized.keras", "quantized.keras --json")
FINDINGS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="MODEL", type=arguments.model, help=arguments.MODEL_FILE)
    arguments.add_json(parser)
    arguments.add_loading(parser)


def run(options: argparse.Namespace) -> int:
    model = start.load(options.path, options)
    results.show(start.package().describe(model), options.json)
    return 0
