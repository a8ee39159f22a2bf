"""`compare`: which layer of a quantized model loses accuracy."""

from __future__ import annotations

import argparse

from tensorflow_quantization_cli import arguments, results, start

HELP = "Name the layer of a quantized model that loses accuracy, and what to do about it."
DESCRIPTION = """\
DATA are samples as in use, not those of the calibration: a folder of images, an
.npy or an .npz file, of which --samples at random are compared. `quantize --keep
FOLDER` writes the three files."""
USAGE = "FLOAT QUANTIZED DATA [options]"
EXAMPLES = (
    "kept/float.keras kept/quantized.keras kept/samples.npz",
    "float.keras quantized.keras images/ --file model.onnx --min-snr 20",
    "kept/float.keras kept/quantized.keras kept/samples.npz --file model.onnx --html report.html",
)
FINDINGS = "the signal-to-noise ratio of the outputs is below --min-snr"

#: What the remedies, which are calls of Python, are for the command `quantize`, by the kind of the finding.
_OPTIONS = {
    "input": "--data as in use, with the same options for images",
    "clipped": "--method minmax",
    "wide": "--data as in use",
    "bits": "more --weight-bits or --activation-bits",
    "weights": "--steps 500 trains with the float model as the teacher",
}

RUNTIMES = ("onnxruntime", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FLOAT", type=arguments.model, help=f"the float model, {arguments.MODEL_FILE}")
    parser.add_argument(
        "quantized", metavar="QUANTIZED", type=arguments.model, help=f"its quantized model, {arguments.MODEL_FILE}"
    )
    parser.add_argument("data", metavar="DATA", type=arguments.data, help="samples")
    arguments.add_preprocessing(parser)
    arguments.add_samples(parser)
    arguments.add_seed(parser, "the choice of samples")
    parser.add_argument(
        "--file", type=arguments.file, metavar="FILE", help="the exported file: compare the tensors in its runtime, too"
    )
    arguments.add_choice(parser, "--runtime", RUNTIMES, "for an .onnx file; default: its target, or onnxruntime")
    arguments.add_min_snr(parser)
    arguments.add_html(parser)
    arguments.add_force(parser)
    arguments.add_json(parser)
    arguments.add_loading(parser)


def check_arguments(options: argparse.Namespace) -> None:
    arguments.check_preprocessing(options)
    arguments.check_html(options)


def run(options: argparse.Namespace) -> int:
    package = start.package()
    float_model, quantized = (start.load(path, options) for path in (options.path, options.quantized))
    from tensorflow_quantization.comparison.compare import check_pair
    from tensorflow_quantization_cli.input_values import warn_of_inputs
    from tensorflow_quantization_cli.samples import open_samples

    check_pair(float_model, quantized)  # before the data is read, and brought to the size of one of them
    samples = open_samples(float_model, options)
    data = samples.read(samples.choose(options.samples, options.seed))
    warn_of_inputs(float_model, [data], options)
    report = package.compare(float_model, quantized, data, file=options.file, runtime=options.runtime)
    if options.html is not None:
        with results.written(options.html, options.force) as html:
            package.html_report(
                html,
                quantized,
                float_model=float_model,
                data=data,
                file=options.file,
                runtime=options.runtime,
                comparison=report,
            )
    results.show(report, options.json, options.html)
    advice = [option for kind, option in _OPTIONS.items() if kind in {finding.kind.value for finding in report.worst}]
    if advice and not options.json:
        results.put("\nWith the command `quantize`: " + "; ".join(advice) + ".")
    why = "the outputs are those of the float model, or always zero"
    return int(results.below("The signal-to-noise ratio", report.output_snr, options.min_snr, "dB", why))
