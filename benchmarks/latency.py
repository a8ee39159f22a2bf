"""Latency of our integer files beside those that a user would make instead, in ONNX Runtime, OpenVINO and LiteRT.

    python benchmarks/latency.py [--quick] [--networks NAME ...] [--folder FOLDER] [--docs DOCS]

Each network is quantized by this library for each target, and by each runtime's own post-training quantizer, from the
same weights with the same calibration images. The files of a network take turns in one runtime, in a process of its
own; medians are compared. A network whose figures are in FOLDER already is not measured again. DOCS gets the page and
the plot.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np

#: Rounds by batch size: single images are quick, and their times vary most.
ROUNDS = {1: 100, 8: 20}
QUICK_ROUNDS = {1: 3, 8: 3}
THREADS = 2
CALIBRATION_IMAGES = 16
TEST_IMAGES = 32


def prepare(name: str, folder: pathlib.Path) -> None:
    """Write all files of a network, the images it is measured on, and what Keras computes of them."""
    import peers
    from networks import images, network
    from tensorflow_quantization import calibrate, export_litert, export_onnx, quantize_model

    model, size = network(name)
    data = images(name, size, CALIBRATION_IMAGES, seed=0)
    float_onnx = export_onnx(model, folder / "float.onnx")
    for target in ("onnxruntime", "openvino", "tensorrt", "litert"):
        quantized = calibrate(quantize_model(model, target=target), data, batch_size=8, verbose=0)
        if target == "litert":
            export_litert(quantized, folder / "ours, litert.tflite")
        else:
            export_onnx(quantized, folder / f"ours, {target}.onnx")
    with tempfile.TemporaryDirectory() as temporary:
        prepared = peers.prepared(pathlib.Path(shutil.copy(float_onnx, temporary)))
        for activations in ("uint8", "int8"):
            path = folder / f"quantize_static {activations}.onnx"
            peers.quantize_static(prepared, data, path, activations, "MinMax")
        for preset in peers.NNCF_PRESETS if "nncf" not in peers.missing() else ():
            peers.nncf_quantize(prepared, data, folder / f"NNCF {preset}.xml", preset, transformer=name == "ViT")
    peers.litert_post_training(model, None, folder / "float.tflite")
    peers.litert_post_training(model, data, folder / "post-training int8.tflite")
    test = images(name, size, TEST_IMAGES, seed=1)
    np.save(folder / "images.npy", test)
    np.save(folder / "outputs.npy", model.predict(test, verbose=0))


def measure(runtime: str, folder: pathlib.Path, batch: int, rounds: int, names: list[str]) -> dict[str, list[float]]:
    """Seconds of each call, by contender, of those that are named."""
    from runtimes import contenders, load
    from tensorflow_quantization.export.verification.timing import interleaved

    test = np.load(folder / "images.npy")[:batch]
    calls = {
        c.name: functools.partial(load(runtime, c, test.shape, THREADS), test)
        for c in contenders(runtime, folder)
        if c.name in names
    }
    return {name: seconds.round(7).tolist() for name, seconds in interleaved(calls, rounds, lead=1).items()}


def inspect(runtime: str, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """Bytes, integer share and agreement with Keras in float of each contender that the runtime loads.

    Our file for this runtime has to be among them.
    """
    from runtimes import contenders, integer_share, load, size

    test, expected = np.load(folder / "images.npy"), np.load(folder / "outputs.npy")
    found = {}
    for contender in contenders(runtime, folder):
        try:
            actual = load(runtime, contender, test.shape, THREADS)(test)
            share = integer_share(runtime, contender)
        except Exception as error:
            if contender.name in ("float", f"ours, {runtime}"):
                raise
            print(f"{runtime} does not run {contender.name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found[contender.name] = {"bytes": size(contender), "integer_share": share, **agreement(actual, expected)}
    return found


def agreement(actual: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """How near logits are to those of the float model, both (images, classes).

    Returns:
        "cosine": between the logits, each less its mean over the images, which says nothing of an image; the mean over
        the images. "top1": the share of images with the same greatest logit.
    """
    a, b = actual - expected.mean(axis=0), expected - expected.mean(axis=0)
    cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    same = actual.argmax(axis=1) == expected.argmax(axis=1)
    return {"cosine": float(cosines.mean()), "top1": float(same.mean())}


def do_step(step: str, arguments: list[str]) -> None:
    if step == "prepare":
        name, folder = arguments
        result = prepare(name, pathlib.Path(folder))
    elif step == "measure":
        runtime, folder, batch, rounds, *names = arguments
        result = measure(runtime, pathlib.Path(folder), int(batch), int(rounds), names)
    else:
        runtime, folder = arguments
        result = inspect(runtime, pathlib.Path(folder))
    print()
    print(json.dumps(result))


def figures_of(name: str, folder: pathlib.Path, rounds: dict[int, int]) -> dict[str, dict]:
    """All figures of a network, by runtime, batch size and contender; kept in a file of the folder."""
    from runtimes import SUFFIXES
    from steps import run_step

    kept = folder / f"{name}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(dir=folder) as files:
        run_step(__file__, "prepare", name, files)
        for runtime in SUFFIXES:
            facts = run_step(__file__, "inspect", runtime, files)
            for batch, count in rounds.items():
                measured = run_step(__file__, "measure", runtime, files, batch, count, *facts)
                merged = {name: {**facts[name], "seconds": seconds} for name, seconds in measured.items()}
                figures.setdefault(runtime, {})[str(batch)] = merged
    kept.write_text(json.dumps(figures))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small network, few rounds: does it run, not how fast")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="of those of the page")
    parser.add_argument("--folder", type=pathlib.Path, help="where figures are kept; default: a temporary one")
    parser.add_argument("--docs", type=pathlib.Path, help="a folder for latency.md and latency.svg")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        do_step(arguments.step[0], arguments.step[1:])
        return

    import latency_page
    from networks import NETWORKS, QUICK

    names = [QUICK] if arguments.quick else arguments.networks or NETWORKS
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = {}
        for name in names:
            print(f"measuring {name}", file=sys.stderr)
            results[name] = figures_of(name, folder, rounds)
    page = latency_page.page(results, rounds, THREADS, datetime.date.today())
    print(page)
    if arguments.docs:
        arguments.docs.mkdir(parents=True, exist_ok=True)
        (arguments.docs / "latency.md").write_text(page)
        latency_page.plot(results, arguments.docs / "latency.svg")


if __name__ == "__main__":
    main()
