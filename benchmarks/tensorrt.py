"""Our files for TensorRT beside NVIDIA ModelOpt's: what NVIDIA's builder makes of them, and what rounding costs.

    python benchmarks/tensorrt.py [--quick] [--networks [NAME ...]] [--ours] [--folder FOLDER] [--docs DOCS]

Each network is quantized by this library and by ModelOpt, from the same weights with the same calibration inputs.
TensorRT for RTX parses and builds the files, for which no GPU is needed; ONNX Runtime computes their signal-to-noise.
The figures of a network are kept in FOLDER, and not measured again; `--ours` measures our files again, and keeps
ModelOpt's figures. DOCS gets the page and the plot, of all networks in FOLDER, after each network; `--networks` without
a name writes only these.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: Inputs of the calibration and of the measurement.
CALIBRATION, EVALUATION = 16, 16
QUICK_INPUTS = 4
#: Our files by name: the target of `quantize_model` and how `calibrate` calibrates, and the precision of the rest.
#: Nothing for the former: in float.
OURS = {
    "float16": ((), "float16"),
    "ours": (("tensorrt", "mse"), "float32"),
    "ours, max": (("tensorrt", "minmax"), "float32"),
    "ours, float16": (("tensorrt", "mse"), "float16"),
    "ours, default placement": ((None, "mse"), "float32"),
}
#: ModelOpt's, by name: how it calibrates, and the precision of the rest. Entropy and fp16 are its defaults.
MODELOPT = {
    "ModelOpt": ("entropy", "fp32"),
    "ModelOpt, float16": ("entropy", "fp16"),
    "ModelOpt, max": ("max", "fp32"),
}
#: Our whole post-training quantization, of trained networks: what it corrects says little where weights are random.
ONE_CALL = "ours, post_training_quantize"
#: Files whose kernels are another's, so they are not built.
NOT_BUILT = ("ours, max", ONE_CALL, "ModelOpt, max")

#: The figures of each file of a network by name, or why there are none: {"failed": why}.
Figures = dict[str, dict[str, Any]]


def prepare(name: str, quick: bool, folder: pathlib.Path) -> Figures:
    """Write our files of a network, and its inputs by the names in these files; return the seconds of each file."""
    from tensorflow_quantization import calibrate, export_onnx, post_training_quantize, quantize_model
    from tensorrt_networks import TRAINED, subject

    count = QUICK_INPUTS if quick else None
    model, calibration, evaluation = subject(name, count or CALIBRATION, count or EVALUATION)
    float_onnx = export_onnx(model, folder / "float.onnx")
    for kept, inputs in (("calibration", calibration), ("evaluation", evaluation)):
        np.savez(folder / f"{kept}.npz", **(inputs if isinstance(inputs, dict) else {_input_name(float_onnx): inputs}))
    quantized = {}

    def write(path: pathlib.Path, how: tuple, precision: str) -> None:
        if how not in quantized:
            target, method = how
            quantized[how] = quantize_model(model, target=target)
            calibrate(quantized[how], calibration, method=method, batch_size=8, verbose=0)
        export_onnx(quantized[how], path, precision=precision)

    def write_one_call() -> None:
        whole = post_training_quantize(model, calibration, target="tensorrt", verbose=0)
        export_onnx(whole, folder / f"{ONE_CALL}.onnx")

    quantized[()] = model
    made = {
        contender: _attempt(functools.partial(write, folder / f"{contender}.onnx", how, precision))
        for contender, (how, precision) in OURS.items()
    }
    return made | ({ONE_CALL: _attempt(write_one_call)} if name in TRAINED else {})


def _input_name(path: pathlib.Path) -> str:
    from peers import input_name

    return input_name(path)


def _attempt(write: Callable[[], object]) -> dict[str, Any]:
    """The seconds of a call, or why it failed."""
    start = time.perf_counter()
    try:
        write()
    except Exception as error:  # of our library, ModelOpt, TensorRT or ONNX Runtime: the page says which network fails
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:300]}"}
    return {"seconds": time.perf_counter() - start}


def quantize_with_modelopt(folder: pathlib.Path, install: bool) -> Figures:
    """Write ModelOpt's files of the float file in a folder, if need be after its installation; return their seconds."""
    import peers

    def write(path: pathlib.Path, method: str, precision: str) -> None:
        python = peers.modelopt_environment(install)
        peers.modelopt_quantize(python, folder / "float.onnx", folder / "calibration.npz", path, method, precision)

    return {
        contender: _attempt(functools.partial(write, folder / f"{contender}.onnx", *arguments))
        for contender, arguments in MODELOPT.items()
    }


def inspect(folder: pathlib.Path) -> Figures:
    """What TensorRT and ONNX Runtime say of each quantized file in a folder."""
    with np.load(folder / "evaluation.npz") as kept:
        inputs = dict(kept)
    expected = run(folder / "float.onnx", inputs)
    found: Figures = {}
    for path in sorted(folder.glob("*.onnx")):
        if path.stem not in {*OURS, ONE_CALL, *MODELOPT}:
            continue
        figures: dict[str, Any] = {}
        try:
            figures |= built(path, inputs) if path.stem not in NOT_BUILT else {}
        except ValueError as error:
            figures["not built"] = str(error)[:600]
        try:
            figures["snr"] = signal_to_noise(run(path, inputs), expected)
        except Exception as error:  # ONNX Runtime has errors of all kinds for files that it does not like
            figures["not run"] = f"{type(error).__name__}: {str(error)[:600]}"
        found[path.stem] = figures
    return found


def built(path: pathlib.Path, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """What TensorRT's builder makes of a file for a batch of one.

    Returns:
        "integer_share": of the multiply-accumulates, those in Int8. "kernels": how many. "float_kernels": those that
        read, write and compute only in float. "float_bytes": of float tensors, as often as kernels read and write them.
        "build_seconds": for the parser and the builder, and the start of their process. "listed": of each kernel that
        is not in integers its type, precision, nodes and bytes by dtype. "fallbacks": why products are not in Int8.
    """
    from tensorflow_quantization import runtime_report

    start = time.perf_counter()
    shapes = {name: (1, *x.shape[1:]) for name, x in inputs.items()}
    report = runtime_report(path, "tensorrt", input_shapes=shapes)
    seconds = time.perf_counter() - start
    listed = [[k.type, k.precision, k.integer, list(k.nodes[:4]), k.bytes] for k in report.executed if not k.integer]
    return {
        "integer_share": report.integer_share,
        "kernels": len(report.executed),
        "float_kernels": sum(k.integer is False and _float_bytes(k.bytes) > 0 for k in report.executed),
        "float_bytes": _float_bytes(report.bytes),
        "build_seconds": seconds,
        "listed": listed,
        "fallbacks": [[node.name, node.op_type, node.macs, node.reason] for node in report.fallbacks[:20]],
    }


def _float_bytes(by_dtype: dict[str, int]) -> int:
    return sum(count for dtype, count in by_dtype.items() if dtype in ("Float", "Half", "BFloat16"))


def run(path: pathlib.Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a file in ONNX Runtime, which computes each node as the file says and fuses nothing.

    Fused into integer kernels, files of one network would round in different places: nothing of this is TensorRT's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    samples = len(next(iter(inputs.values())))
    outputs = [session.run(None, {name: x[i : i + 1] for name, x in inputs.items()}) for i in range(samples)]
    return [np.concatenate(parts).astype("float32") for parts in zip(*outputs, strict=True)]


def signal_to_noise(outputs: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The signal-to-noise ratio in decibels; of several outputs, the lowest.

    The signal is the float output less its mean over the samples, which says nothing of a sample, and is most of the
    output where weights are random.
    """
    ratios = []
    for actual, exact in zip(outputs, expected, strict=True):
        exact64 = exact.astype(np.float64)
        signal, noise = np.sum((exact64 - exact64.mean(axis=0)) ** 2), np.sum((actual - exact64) ** 2)
        ratios.append(float(10 * np.log10(signal / noise)) if noise else float("inf"))
    return min(ratios)


def figures_of(name: str, folder: pathlib.Path, quick: bool, again: bool) -> Figures:
    """All figures of the files of a network, by contender, each with its date; kept in a file of the folder.

    Args:
        name: of the network.
        folder: where the figures of networks are kept.
        quick: with few inputs, and without ModelOpt if it is not installed.
        again: measure our files again, if there are figures.
    """
    from pretrained.network import written_whole
    from steps import run_step

    kept = folder / f"{name}.json"
    before: Figures = json.loads(kept.read_text()) if kept.exists() else {}
    if before and not again:
        return before
    with tempfile.TemporaryDirectory(dir=folder) as files:
        made = run_step(__file__, "prepare", name, int(quick), files)
        if not before:
            made |= quantize_with_modelopt(pathlib.Path(files), install=not quick)
        facts = run_step(__file__, "inspect", files)
    today = datetime.date.today().isoformat()
    measured = {contender: made[contender] | facts.get(contender, {}) | {"date": today} for contender in made}
    theirs = {contender: figures for contender, figures in before.items() if contender in MODELOPT}
    figures = measured | theirs
    with written_whole(kept) as path:
        path.write_text(json.dumps(figures))
    return figures


def do_step(step: str, arguments: list[str]) -> None:
    if step == "prepare":
        name, quick, folder = arguments
        result = prepare(name, bool(int(quick)), pathlib.Path(folder))
    else:
        result = inspect(pathlib.Path(arguments[0]))
    print("\n" + json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one small network, ModelOpt if it is installed: does it run"
    )
    parser.add_argument("--networks", nargs="*", metavar="NAME", help="default: all; no names: only write the page")
    parser.add_argument("--ours", action="store_true", help="measure our files again, beside ModelOpt's as they were")
    parser.add_argument("--folder", type=pathlib.Path, help="where figures are kept; default: a temporary one")
    parser.add_argument("--docs", type=pathlib.Path, help="a folder for tensorrt.md and tensorrt.svg")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        do_step(arguments.step[0], arguments.step[1:])
        return

    import tensorrt_page
    from tensorrt_networks import NETWORKS, QUICK

    known = (QUICK,) if arguments.quick else NETWORKS
    names = known if arguments.networks is None or arguments.quick else arguments.networks
    if unknown := set(names) - set(known):
        parser.error(f"no networks {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*names, None]:
            if name is not None:
                print(f"measuring {name}", file=sys.stderr)
                figures_of(name, folder, arguments.quick, arguments.ours)
            kept = {n: folder / f"{n}.json" for n in known}
            results = {n: json.loads(path.read_text()) for n, path in kept.items() if path.exists()}
            page = tensorrt_page.page(results, known)
            if arguments.docs:
                arguments.docs.mkdir(parents=True, exist_ok=True)
                (arguments.docs / "tensorrt.md").write_text(page)
                tensorrt_page.plot(results, arguments.docs / "tensorrt.svg")
    print(page)


if __name__ == "__main__":
    main()
