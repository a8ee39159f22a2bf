"""`sensitivity`: what each layer loses in fewer bits."""

from __future__ import annotations

import argparse

from tensorflow_quantization_cli import arguments, results, start

HELP = "Measure how much the output of a float model loses with each layer, alone, in fewer bits."
DESCRIPTION = """\
DATA is a folder of images, or an .npy or .npz file, as for `quantize`. All of
--samples estimate the ranges, and the first 64 measure the loss.

A layer with weights is quantized with its weights and what it reads. An
embedding, a pool or a sum has no row: it counts for the layers that read it."""
USAGE = "MODEL --data DATA [options]"
EXAMPLES = (
    "model.keras --data images/ --target onnxruntime",
    "model.keras --data inputs.npz --weight-bits 4,8 --min-snr 15 --json",
)
FINDINGS = "a layer, alone, is below --min-snr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="MODEL", type=arguments.model, help=f"the float model, {arguments.MODEL_FILE}")
    parser.add_argument("--data", metavar="DATA", required=True, type=arguments.data, help="samples, without labels")
    arguments.add_choice(parser, "--target", arguments.TARGETS, "default: onnxruntime", "onnxruntime")
    arguments.add_preprocessing(parser)
    arguments.add_bits(parser, "weight", several=True)
    arguments.add_bits(parser, "activation", several=True)
    arguments.add_choice(parser, "--method", arguments.METHODS, "how ranges are estimated; default: %(default)s", "mse")
    arguments.add_samples(parser)
    arguments.add_seed(parser, "the choice of samples")
    arguments.add_min_snr(parser)
    arguments.add_json(parser)
    arguments.add_loading(parser)


def check_arguments(options: argparse.Namespace) -> None:
    arguments.check_preprocessing(options)
    arguments.check_samples(options)


def run(options: argparse.Namespace) -> int:
    package = start.package()
    model = start.load(options.path, options)
    from tensorflow_quantization.model.finite import check_finite_model
    from tensorflow_quantization_cli.float_model import check_float
    from tensorflow_quantization_cli.input_values import warn_of_inputs, without_scale_warning
    from tensorflow_quantization_cli.samples import open_samples

    check_float(model, options.path)
    samples = open_samples(model, options)
    with results.progress_on_stderr():
        data = samples.read(samples.choose(options.samples, options.seed))
        check_finite_model(model, [data])
        warn_of_inputs(model, [data], options)
        with without_scale_warning():
            found = package.sensitivity(
                model,
                data,
                target=options.target,
                weight_bits=options.weight_bits,
                activation_bits=options.activation_bits or (8,),
                method=options.method,
            )
    results.show(found, options.json)
    worst = min((snr for layer in found.layers for snr in layer.snr.values()), default=float("inf"))
    why = "no layer was quantized, or none changed the outputs"
    return int(
        results.below("The signal-to-noise ratio of the most sensitive layer", worst, options.min_snr, "dB", why)
    )
