"""`benchmark`: the latency of files beside each other."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorflow_quantization_cli import arguments, results, start

if TYPE_CHECKING:
    from tensorflow_quantization_cli.files import Latency

HELP = "Measure the latency of files, in turns, and their ratio to the first."
DESCRIPTION = """\
An .onnx file runs in its target, if that is onnxruntime or openvino and
installed, else in ONNX Runtime; a .tflite file runs in LiteRT. All run on the
CPU, with the default threads of the runtime, LiteRT with one for each core. The
files take turns, so that a busy machine slows all of them down alike; the
interval of a ratio holds it with a probability of 95 %. Inputs are random."""
USAGE = "FILE... [options]"
EXAMPLES = (
    "float.onnx model.onnx",
    "float.onnx model.onnx --runtime openvino --batch-size 8",
    "float.onnx model.onnx --max-ratio 0.6 --json",
)
FINDINGS = "a file takes more than --max-ratio times as long as the first"

RUNTIMES = ("onnxruntime", "openvino")
SUFFIXES = (".onnx", ".tflite")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="FILE", nargs="+", type=_model_file, help="an .onnx or .tflite file")
    arguments.add_choice(parser, "--runtime", RUNTIMES, "for all .onnx files; default: the target of each")
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=1, metavar="N", help="where it is not fixed; default: 1"
    )
    arguments.add_input_shape(parser)
    parser.add_argument(
        "--rounds", type=arguments.positive, default=50, metavar="N", help="runs of each file; default: %(default)s"
    )
    parser.add_argument("--max-ratio", type=arguments.number, metavar="RATIO", help="to the first file")
    arguments.add_json(parser)


def check_arguments(options: argparse.Namespace) -> None:
    twice = [path for path in options.paths if options.paths.count(path) > 1]
    if twice:
        raise argparse.ArgumentTypeError(f"{twice[0]} is given twice")
    if options.max_ratio is not None and len(options.paths) == 1:
        raise argparse.ArgumentTypeError("--max-ratio is for files after the first: pass at least two")


def run(options: argparse.Namespace) -> int:
    start.package()
    from tensorflow_quantization.text.messages import did_you_mean
    from tensorflow_quantization_cli.files import latencies, load_file

    loaded = {path: load_file(path, options.runtime) for path in options.paths}
    shapes = dict(options.input_shape)
    inputs = [name for one in loaded.values() for name in one.inputs]
    for name in shapes:
        if name not in inputs:
            raise ValueError(f"No file has the input {name!r} of --input-shape.{did_you_mean(name, inputs)}")
    calls = {path: partial(one.run, one.random_inputs(options.batch_size, shapes)) for path, one in loaded.items()}
    measured = latencies(calls, options.rounds)
    results.show(_Table([(row, loaded[row.name].runtime) for row in measured]), options.json)
    slow = [row for row in measured[1:] if options.max_ratio is not None and row.ratio > options.max_ratio]
    for row in slow:
        open_ = row.interval is None or row.interval[0] <= options.max_ratio
        hint = " The interval holds the limit, too: pass more --rounds, on an idle machine." if open_ else ""
        results.note(f"{row.name} takes {row.ratio:.2f} x, more than the limit of {options.max_ratio:g} x.{hint}")
    return int(bool(slow))


class _Table:
    """The latency of each file, and its runtime."""

    def __init__(self, rows: list[tuple[Latency, str]]):
        self.rows = rows

    def to_dict(self) -> dict[str, Any]:
        return {
            "files": [
                {
                    "path": row.name,
                    "milliseconds": row.milliseconds,
                    "ratio": row.ratio,
                    "ratio_interval": row.interval,
                    "runtime": runtime,
                }
                for row, runtime in self.rows
            ]
        }

    def __str__(self) -> str:
        from tensorflow_quantization.text.tables import text_table
        from tensorflow_quantization_cli.files import interval_text

        cells = [
            [
                row.name,
                runtime,
                f"{row.milliseconds:.3g} ms",
                f"{row.ratio:.2f} x",
                interval_text(row.interval) if i else "",
            ]
            for i, (row, runtime) in enumerate(self.rows)
        ]
        return text_table(("file", "runtime", "median", "ratio", "95 % interval"), cells)


def _model_file(given: str) -> str:
    if Path(arguments.path(given)).suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"A file to run ends in {arguments.one_of(SUFFIXES)}, got {given}.")
    return arguments.file(given)
