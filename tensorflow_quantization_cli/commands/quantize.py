"""`quantize`: from a `.keras` file and samples to a verified file in integers."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from shlex import quote
from typing import Any

from tensorflow_quantization_cli import arguments, results, start

HELP = "Quantize a model without labels, write it for a runtime, and verify it there."
DESCRIPTION = """\
DATA is a folder of images, searched with its folders, or an .npy or .npz file;
the arrays of an .npz file have the names of the model's inputs. Some hundred
samples are enough. A fifth of them, at most 64, are kept apart: on these the
file is verified in its runtime and compared with the float model.

Progress goes to stderr. The result goes to stdout: sizes, latencies measured in
turns, the share that runs in integers, and the signal-to-noise ratio of the
outputs against the float model."""
USAGE = "MODEL --data DATA -o FILE [options]"
EXAMPLES = (
    "model.keras --data images/ -o model.onnx",
    "model.keras --data images/ --scale 1/255 -o model.tflite --html report.html",
    "model.keras --data inputs.npz --target openvino -o model.onnx --min-snr 20 --json",
    "model.keras --data images/ --weight-bits 4 --effort best --steps 500 -o model.onnx",
)
FINDINGS = (
    "the file is written and verified, but a figure is below --min-snr or --min-integer-share,\n     or cannot be had"
)

EFFORTS = ("fast", "best")
#: Besides integers; `quantizers.scheme.FLOAT8`, which takes a second to import.
DTYPES = ("float8_e4m3fn",)
#: The options that `quantize_model` has, too.
_OF_THE_PLAN = ("target", "weight_bits", "activation_bits", "block_size", "dtype")
#: The files of `--keep`.
_KEPT = ("quantized.keras", "float.keras", "samples.npz")
#: Samples that a file is verified on; each is compared layer by layer.
_VERIFIED = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=arguments.model, help=f"the float model, {arguments.MODEL_FILE}")
    parser.add_argument("--data", metavar="DATA", required=True, type=arguments.data, help="samples, without labels")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, type=arguments.path, help="the .onnx or .tflite file to write"
    )
    arguments.add_choice(parser, "--target", arguments.TARGETS, "default: litert for a .tflite file, else onnxruntime")
    arguments.add_html(parser)
    arguments.add_force(parser)
    arguments.add_json(parser)
    arguments.add_loading(parser)
    arguments.add_preprocessing(parser)
    group = parser.add_argument_group("quality")
    group.add_argument(
        "--samples",
        type=arguments.positive,
        default=arguments.MOST_SAMPLES,
        metavar="N",
        help="the most samples for calibration, up to %(default)s, which is the default",
    )
    group.add_argument(
        "--batch-size",
        type=arguments.positive,
        default=32,
        metavar="N",
        help="samples in a batch; default: %(default)s",
    )
    arguments.add_choice(
        group, "--effort", EFFORTS, "best also trains roundings, for minutes; default: %(default)s", "fast"
    )
    arguments.add_bits(group, "weight")
    arguments.add_bits(group, "activation", wide=", or 16 for LiteRT")
    group.add_argument(
        "--small-kernel-bits",
        type=arguments.bits,
        default=7,
        metavar="BITS",
        help="bits of the layers with the fewest weights, where --weight-bits is lower; default: %(default)s",
    )
    group.add_argument(
        "--block-size",
        type=arguments.block_size,
        metavar="N",
        help="dense layers and attention multiply floats by weights of --weight-bits, default 4, and N inputs share a "
        "scale: 16, 32, 64, ...; default: no blocks",
    )
    arguments.add_choice(group, "--dtype", DTYPES, "numbers of FP8, for tensorrt; default: integers")
    arguments.add_choice(group, "--method", arguments.METHODS, "how ranges are estimated; default: %(default)s", "mse")
    group.add_argument(
        "--steps",
        type=arguments.positive,
        metavar="N",
        help="then train for N batches, with the float model as the teacher; default: no training",
    )
    arguments.add_seed(group, "the choice of samples and of training")
    limits = parser.add_argument_group("limits", "below a limit the exit status is 1")
    arguments.add_min_snr(limits)
    arguments.add_min_share(limits)
    parser.add_argument(
        "--keep",
        metavar="FOLDER",
        type=arguments.path,
        help="also write what `compare` reads: quantized.keras, float.keras (the float model as it was quantized) and "
        "samples.npz (those kept apart)",
    )


def check_arguments(options: argparse.Namespace) -> None:
    lite = Path(options.output).suffix == ".tflite"
    options.target = options.target or ("litert" if lite else "onnxruntime")
    suffix = ".tflite" if options.target == "litert" else ".onnx"
    arguments.check_output(options.output, suffix, options.force, f", which {options.target} reads")
    arguments.check_html(options)
    arguments.check_preprocessing(options)
    arguments.check_samples(options)
    for name, able in (("weight_bits", (8,)), ("activation_bits", (8, 16))):
        if options.target == "litert" and getattr(options, name) not in (None, *able):
            bits = " or ".join(map(str, able))
            raise argparse.ArgumentTypeError(f"LiteRT computes in {bits} bits: leave --{name.replace('_', '-')} out")
    if options.target != "litert" and options.activation_bits == 16:
        raise argparse.ArgumentTypeError("--activation-bits 16 is for --target litert")
    if options.target == "litert" and options.block_size is not None:
        raise argparse.ArgumentTypeError("LiteRT has no weights in blocks: leave --block-size out")
    in_blocks = (4,) if options.target == "tensorrt" else (4, 8)
    if options.block_size is not None and options.weight_bits not in (None, *in_blocks):
        bits = " or ".join(map(str, in_blocks))
        raise argparse.ArgumentTypeError(f"weights in blocks have {bits} bits for {options.target}: see --weight-bits")
    if options.dtype is not None:
        if options.target != "tensorrt":
            raise argparse.ArgumentTypeError(f"--dtype {options.dtype} is for --target tensorrt")
        for name in ("weight_bits", "activation_bits", "block_size", "min_integer_share"):
            if getattr(options, name) is not None:
                raise argparse.ArgumentTypeError(
                    f"--{name.replace('_', '-')} is for integers: leave it out with --dtype"
                )
        if options.effort == "best":
            raise argparse.ArgumentTypeError(
                "--effort best trains the roundings of integers: leave it out with --dtype"
            )
    if options.keep is not None:
        arguments.check_folder(options.keep, options.force)
    for place in _places(options).values():  # not even with --force
        if place.resolve() in (Path(options.model).resolve(), Path(options.data).resolve()):
            raise argparse.ArgumentTypeError(
                f"{place} is read by this command, and would be replaced: pass another path"
            )


def run(options: argparse.Namespace) -> int:
    with results.progress_on_stderr():
        summary = _quantize(options)
    results.show(summary, options.json, options.html)
    if summary.overfits:
        results.warn(_overfit_text(summary, options))
    if not summary.held_out:
        results.warn(
            f"The ranges and the accuracy are of the same {summary.samples} samples, so other samples may lose more. "
            f"Pass more as --data: up to {arguments.MOST_SAMPLES} are used."
        )
    if summary.mostly_floats and options.activation_bits is None:  # else `warn_of_floats` said it
        hint = "; --block-size pays where the bytes of the weights limit the speed" if options.block_size else ""
        results.warn(
            f"Most of the multiply-accumulates run in floats: `report {quote(options.output)}` lists which, and "
            f"why{hint}."
        )
    if summary.nothing_measured is not None and summary.same_class is None:
        results.warn(f"The accuracy is not measured: {summary.nothing_measured}. Check the model and the samples.")
    snr = results.below("The signal-to-noise ratio", summary.snr, options.min_snr, "dB", summary.nothing_measured)
    if snr and summary.snr is not None:
        results.note(_help_text(options))
    integers = results.below("The share in integers", summary.integer_share, options.min_integer_share, "")
    return int(snr or integers)


def _help_text(options: argparse.Namespace) -> str:
    """What may raise the signal-to-noise ratio, besides what was passed."""
    best = options.effort != "best" and options.dtype is None
    untried = [*(["--effort best"] if best else []), *([] if options.steps else ["--steps 500"])]
    kept = f"{quote(options.keep)}/..." if options.keep else "the files of --keep FOLDER"
    named = f"`compare` names the layer that loses most, from {kept}."
    return f"{' and '.join(untried)} may help; {named}" if untried else named


def _overfit_text(summary: Any, options: argparse.Namespace) -> str:
    text = (
        f"The signal-to-noise ratio is {summary.calibration_snr:.1f} dB on samples of the calibration, and "
        f"{summary.snr:.1f} dB on others: the calibration had too few samples for this model, {summary.calibrated}."
    )
    if summary.calibrated < options.samples:
        return f"{text} Pass more as --data: up to {arguments.MOST_SAMPLES} are used."
    if options.samples < arguments.MOST_SAMPLES:
        return f"{text} Pass a larger --samples, up to {arguments.MOST_SAMPLES}."
    return f"{text} More are not used: try --method minmax, or --steps 500, which trains on all."


def _quantize(options: argparse.Namespace) -> Any:
    package = start.package()
    from keras import tree

    from tensorflow_quantization.accuracy.equalized_models import equalized_model
    from tensorflow_quantization.model.finite import check_finite_model
    from tensorflow_quantization.quantize.pipeline import plan_model
    from tensorflow_quantization.text.replacing import replacing_all
    from tensorflow_quantization_cli.files import require
    from tensorflow_quantization_cli.float_model import (
        check_float,
        check_steps,
        export_float,
        runtime_here,
        warn_of_floats,
        warn_of_saturation,
    )
    from tensorflow_quantization_cli.input_values import warn_of_inputs, without_scale_warning
    from tensorflow_quantization_cli.samples import open_samples
    from tensorflow_quantization_cli.summary import Summary, measure
    from tensorflow_quantization_cli.training import train

    runtime = runtime_here(options.target)
    if options.min_integer_share is not None:
        require(options.target)  # which tells the share
    model = start.load(options.model, options)
    check_float(model, options.model)
    # What the target does not compute is found before the data is read.
    asked = {name: getattr(options, name) for name in _OF_THE_PLAN}
    plan_model(model, **asked)
    check_steps(model, options.target)
    samples = open_samples(model, options)
    chosen, held_out = samples.split(options.samples, options.seed)
    print(f"Read {len(chosen) + len(held_out)} of {samples.count} samples")
    # All are read before any work, so that a damaged image is found at once.
    data = samples.batches(chosen, options.batch_size)
    measured = samples.read(held_out if len(held_out) else chosen)
    check_finite_model(model, [measured])  # the rest of the data is checked where it calibrates
    warn_of_inputs(model, data, options)
    warn_of_saturation(runtime, options.weight_bits)
    warn_of_floats(options.target, options.activation_bits)
    start.seed(options.seed)
    output = Path(options.output)
    with tempfile.TemporaryDirectory() as folder:
        # First, because a layer that cannot be written is found here.
        float_file = export_float(model, Path(folder) / f"float{output.suffix}")
        print(f"Quantize for {options.target}")
        with without_scale_warning():  # which `warn_of_inputs` gave, with the options that help
            quantized = package.post_training_quantize(
                model,
                iter(data),
                **asked,
                small_kernel_bits=options.small_kernel_bits,
                effort=options.effort,
                method=options.method,
                verbose=results.verbosity(),
            )
        float_twin = equalized_model(quantized, model)
        if options.steps:
            print(f"Train for {options.steps} steps")
            batches = samples.training(held_out, options.batch_size, options.steps, options.seed)
            train(quantized, model, batches, options.steps, data)
        print(f"Write and verify {output}")
        verified = samples.read((held_out if len(held_out) else chosen)[: samples.whole(_VERIFIED) or samples.batch])
        places = _places(options)
        # All results are moved to their places at once.
        with replacing_all(list(places.values()), replace=options.force) as temporary:
            files = dict(zip(places, temporary, strict=True))
            written = files["output"]
            if options.target == "litert":
                package.export_litert(quantized, written, verify_with=verified)
            else:
                package.export_onnx(quantized, written, target=options.target, verify_with=verified)
            print("Measure")
            calibrated = data[: -(-len(held_out) // len(tree.flatten(data[0])[0]))]
            both = (float_file, written)
            figures = measure(model, quantized, both, options.target, runtime, measured, calibrated)
            if options.keep is not None:
                _keep(files, quantized, float_twin, measured)
            if options.html is not None:
                print("Write the HTML report")
                package.html_report(
                    files["html"],
                    quantized,
                    float_model=model,
                    data=measured,
                    file=written,
                    float_file=float_file,
                    metrics=_metrics(figures),
                    latency=False,  # it is among the figures
                )
    return Summary(
        options.output,
        options.target,
        runtime,
        held_out=bool(len(held_out)),
        calibrated=len(chosen),
        dtype=options.dtype,
        **figures,
    )


def _metrics(figures: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    """The figures of a `Summary` that an HTML report does not find itself, for float and quantized."""
    found: dict[str, tuple[str | None, str]] = {}
    if figures["same_class"] is not None:
        found["Same class as float"] = (None, f"{100 * figures['same_class']:.1f} %")
    if figures["milliseconds"] is not None:
        of_float, of_quantized = (f"{ms:.3g} ms" for ms in figures["milliseconds"])
        found["Latency"] = (of_float, of_quantized)
    return found


def _places(options: argparse.Namespace) -> dict[str, Path]:
    """Returns the paths of the files that the command writes, by what they are."""
    places = {"output": Path(options.output)}
    if options.html is not None:
        places["html"] = Path(options.html)
    if options.keep is not None:
        places |= {name: Path(options.keep) / name for name in _KEPT}
    return places


def _keep(files: dict[str, Path], quantized: Any, float_model: Any, samples: Any) -> None:
    import numpy as np
    from keras import tree

    if not isinstance(samples, dict):
        samples = {tensor.name: x for tensor, x in zip(quantized.inputs, tree.flatten(samples), strict=True)}
    of_quantized, of_float, of_samples = (files[name] for name in _KEPT)
    quantized.save(of_quantized)
    float_model.save(of_float)
    np.savez(of_samples, **samples)
