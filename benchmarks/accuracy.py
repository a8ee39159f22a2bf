"""Accuracy of our integer files beside those that a user would make instead, on networks with trained weights.

    python benchmarks/accuracy.py [--quick] [--networks NAME ...] [--seeds COUNT] [--folder FOLDER] [--docs DOCS]

Each network is quantized by this library and by each runtime's own post-training quantizer, from the same weights with
the same calibration set. The files run in the runtime; their outputs are compared with those of the float model. Files
of a network that is measured already, in FOLDER, are not made again. DOCS gets the page and the plot.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pretrained.network import TrainedNetwork

#: The runtimes with a quantizer of their own.
RUNTIMES = ("onnxruntime", "openvino", "litert")
#: The ways to run a file. Processors without VNNI saturate 8-bit products: ONNX Runtime is told to add in 32 bits, and
#: OpenVINO runs each file as it comes and, after the same rounding, in floats; the better result counts.
WAYS: dict[str, list[dict[str, Any]]] = {
    "onnxruntime": [{"session.x64quantprecision": "1"}],
    "openvino": [{}, {"LP_TRANSFORMS_MODE": False, "INFERENCE_PRECISION_HINT": "f32"}],
    "litert": [{}],
}
THREADS = 2
#: Samples in a batch, at most.
BATCH = 64
QUICK, QUICK_SAMPLES = "fer", 32
#: Of the files that are written; NNCF takes its own.
SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".onnx", "litert": ".tflite"}

#: Writes a file.
Write = Callable[[pathlib.Path], Any]


def our_files(network: TrainedNetwork, target: str, quick: bool) -> dict[str, Write]:
    """By name, what this library makes of a network; with 8 bits only if `quick`."""
    from tensorflow_quantization import calibrate, export_litert, export_onnx, post_training_quantize, quantize_model

    export = export_litert if target == "litert" else export_onnx

    def calibrated(path: pathlib.Path, method: str, weight_bits: int) -> None:
        quantized = quantize_model(network.model, target=target, weight_bits=weight_bits)
        export(calibrate(quantized, network.calibration, method=method, verbose=0), path)

    def post_training(path: pathlib.Path, **arguments: Any) -> None:
        export(post_training_quantize(network.model, network.calibration, target=target, verbose=0, **arguments), path)

    files: dict[str, Write] = {}
    titles = {8: "ours"} if quick or target == "litert" else {8: "ours", 4: "ours W4"}  # not in LiteRT
    for bits, title in titles.items():
        for method in ("minmax", "mse"):
            files[f"{title}, {method}"] = functools.partial(calibrated, method=method, weight_bits=bits)
        files[f"{title}, post_training_quantize"] = functools.partial(post_training, weight_bits=bits)
    if target == "onnxruntime" and 4 in titles:  # it takes minutes: in one runtime
        files["ours W4, best effort"] = functools.partial(post_training, weight_bits=4, effort="best")
    if target == "litert" and not quick:
        files["ours A16, post_training_quantize"] = functools.partial(post_training, activation_bits=16)
    return files


def their_files(network: TrainedNetwork, runtime: str, float_onnx: pathlib.Path) -> dict[str, Write]:
    """By name, what the runtime's own quantizer makes of a network."""
    import peers

    data = network.calibration
    if runtime == "litert":
        return {"post-training int8": functools.partial(peers.litert_post_training, network.model, data)}
    prepared = peers.prepared(float_onnx)
    if runtime == "onnxruntime":
        return {
            f"quantize_static {activations} {method}": functools.partial(
                peers.quantize_static, prepared, data, activations=activations, method=method
            )
            for activations, method in (("uint8", "MinMax"), ("int8", "MinMax"), ("uint8", "Percentile"))
        }
    if "nncf" in peers.missing():
        return {}
    return {
        f"NNCF {preset}{'' if fast else ', accurate bias correction'}": functools.partial(
            nncf, prepared, data, preset=preset, transformer=network.name == "vit", fast=fast
        )
        for preset in peers.NNCF_PRESETS
        for fast in (True, False)
    }


def nncf(prepared: pathlib.Path, data: np.ndarray, path: pathlib.Path, **arguments: Any) -> None:
    """NNCF writes OpenVINO's own format."""
    import peers

    peers.nncf_quantize(prepared, data, path.with_suffix(".xml"), **arguments)


def sampled(name: str, seed: int, quick: bool) -> TrainedNetwork:
    """The network with its inputs; with a few of them if `quick`."""
    from trained import trained_network

    network = trained_network(name, seed)
    if not quick:
        return network
    parts = {key: getattr(network, key) for key in ("calibration", "evaluation", "labels", "targets")}
    return dataclasses.replace(network, **{k: v if v is None else v[:QUICK_SAMPLES] for k, v in parts.items()})


def prepare(network: TrainedNetwork, runtime: str, folder: pathlib.Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Writes all files of a network for a runtime; returns the seconds of each, or why there is none."""
    from tensorflow_quantization import export_onnx

    with tempfile.TemporaryDirectory() as temporary:
        float_onnx = export_onnx(network.model, pathlib.Path(temporary, "float.onnx"))
        files = {**our_files(network, runtime, quick), **their_files(network, runtime, float_onnx)}
        found: dict[str, dict[str, Any]] = {}
        for contender, write in files.items():
            start = time.perf_counter()
            try:
                write(folder / f"{contender}{SUFFIXES[runtime]}")
            except Exception as error:
                found[contender] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            else:
                found[contender] = {"seconds": time.perf_counter() - start}
    return found


def measure(network: TrainedNetwork, runtime: str, folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Runs the files of a network; returns the figures of each, or why it does not run."""
    from runtimes import SUFFIXES as READ
    from runtimes import Contender, size

    expected = network.model.predict(network.evaluation, batch_size=BATCH, verbose=0)
    found = {"float": figures(expected, expected, network)}
    found["float"]["bytes"] = 4 * network.model.count_params()
    for path in sorted(path for path in folder.iterdir() if path.suffix in READ[runtime]):
        try:
            ways = [outputs_of(runtime, Contender(path.stem, path, way), network.evaluation) for way in WAYS[runtime]]
        except Exception as error:
            found[path.stem] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        else:
            best = max((figures(outputs, expected, network) for outputs in ways), key=lambda found: found["snr"])
            found[path.stem] = {"bytes": size(Contender(path.stem, path)), **best}
    return found


def outputs_of(runtime: str, contender: Any, inputs: np.ndarray) -> np.ndarray:
    """Runs a file on all inputs."""
    from runtimes import load

    batch = max(size for size in range(1, BATCH + 1) if len(inputs) % size == 0)
    run = load(runtime, contender, (batch, *inputs.shape[1:]), THREADS)
    return np.concatenate([np.array(run(inputs[i : i + batch])) for i in range(0, len(inputs), batch)])


def figures(outputs: np.ndarray, expected: np.ndarray, network: TrainedNetwork) -> dict[str, float]:
    """How near outputs are to those of the float model, and to the truth where it is known.

    Returns:
        "snr": the ratio of the power of the float outputs to that of the error, in decibels. Of classifiers,
        "agreement": the share of samples with the same greatest logit. Of networks with labels, "accuracy": the share
        of right answers; and where a label is 1 or 0, "auc": the area under the ROC curve. "psnr": peak signal-to-noise
        ratio to the target images, in decibels, for values of 0 to 1.
    """
    from pretrained.network import right

    error = np.sum((outputs - expected) ** 2, dtype=np.float64)
    found = {"snr": float(10 * np.log10(np.sum(expected**2, dtype=np.float64) / error)) if error else float("inf")}
    binary = network.labels is not None and network.labels.shape == expected.shape
    if expected.ndim == 2 and not binary:
        found["agreement"] = float(np.mean(outputs.argmax(-1) == expected.argmax(-1)))
    if network.labels is not None:
        found["accuracy"] = right(outputs, network.labels)
    if binary:
        from sklearn.metrics import roc_auc_score

        found["auc"] = float(roc_auc_score(network.labels.ravel(), outputs.ravel()))
    if network.targets is not None:
        found["psnr"] = float(-10 * np.log10(np.mean((outputs - network.targets) ** 2, dtype=np.float64)))
    return found


def measured(name: str, seed: int, quick: bool, folder: pathlib.Path) -> dict[str, dict]:
    """All figures of a network, by runtime and contender; kept in a file of the folder."""
    from steps import run_step

    kept = folder / f"{name}-{seed}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    found: dict[str, dict] = {}
    for runtime in RUNTIMES:
        with tempfile.TemporaryDirectory(dir=folder) as files:
            made = run_step(__file__, "prepare", name, seed, quick, runtime, files)
            ran = run_step(__file__, "measure", name, seed, quick, runtime, files)
        found[runtime] = {contender: {**made.get(contender, {}), **ran.get(contender, {})} for contender in ran | made}
    kept.write_text(json.dumps(found))
    return found


def do_step(step: str, name: str, seed: str, quick: str, runtime: str, folder: str) -> None:
    small = quick == "True"
    network = sampled(name, int(seed), small)
    if step == "prepare":
        result = prepare(network, runtime, pathlib.Path(folder), small)
    else:
        result = measure(network, runtime, pathlib.Path(folder))
    print()
    print(json.dumps(result))


def main() -> None:
    from trained import NAMES, SEEDED, UnavailableError, trained_network

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK}, a few samples: does it run")
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each that comes untrained; default: 3")
    parser.add_argument("--folder", type=pathlib.Path, help="where figures are kept; default: a temporary one")
    parser.add_argument("--docs", type=pathlib.Path, help="a folder for accuracy.md and accuracy.svg")
    parser.add_argument("--step", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        do_step(*arguments.step)
        return

    import accuracy_page

    results: dict[str, list[dict[str, dict]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in [QUICK] if arguments.quick else arguments.networks:
            for seed in range(arguments.seeds if name in SEEDED else 1):
                try:
                    trained_network(name, seed)
                except UnavailableError as error:
                    print(f"{name}: skipped: {error}", file=sys.stderr)
                    continue
                print(f"measuring {name}, seed {seed}", file=sys.stderr)
                results.setdefault(name, []).append(measured(name, seed, arguments.quick, folder))
    page = accuracy_page.page(results, datetime.date.today())
    print(page)
    if arguments.docs:
        arguments.docs.mkdir(parents=True, exist_ok=True)
        (arguments.docs / "accuracy.md").write_text(page)
        accuracy_page.plot(results, arguments.docs / "accuracy.svg")


if __name__ == "__main__":
    main()
