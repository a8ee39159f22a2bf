"""What the export of a float model costs, and what its file is worth, beside Keras' own `model.export(format="onnx")`.

    python benchmarks/export.py [--quick] [--networks NAME ...] [--docs FOLDER]

Each export runs in a process of its own, ours and Keras' in turns; its peak memory is what the process took beyond what
it had with the loaded model. Then the files of a network take turns in each runtime. FOLDER gets the page, export.md.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from memory import measure_call
from steps import run_step

NETWORKS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "InceptionV3", "ConvNeXtTiny", "ViT")
#: For `--quick`: the smallest MobileNetV2.
QUICK = "MobileNetV2 0.35"
EXPORTERS = ("Keras", "ours")
RUNTIMES = ("ONNX Runtime", "OpenVINO")
THREADS = 2


def network(name: str):
    """A Keras model with random weights, the same each time."""
    import keras

    from models import small_vit

    keras.utils.set_random_seed(0)
    if name == QUICK:
        return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    return small_vit() if name == "ViT" else getattr(keras.applications, name)(weights=None)


def measure_export(exporter: str, name: str, path: str) -> dict[str, float]:
    """Seconds and peak bytes of the first export in this process, and the bytes of the weights."""
    import tf2onnx  # noqa: F401  (what either exporter imports is not counted)

    from tensorflow_quantization import export_onnx

    model = network(name)
    model(np.zeros((1, *model.inputs[0].shape[1:]), "float32"))  # Keras exports only a model that was called
    calls = {
        "Keras": lambda: model.export(path, format="onnx", verbose=False),
        "ours": lambda: export_onnx(model, path),
    }
    weights = sum(np.prod(v.shape) * np.dtype(v.dtype).itemsize for v in model.weights)
    return {**measure_call(calls[exporter]), "weights": int(weights)}


def measure_chains(*depths: str) -> dict[str, float]:
    """Median seconds of the export of chains of convolutions, by depth."""
    from quantize_time import chain
    from tensorflow_quantization import export_onnx

    sys.setrecursionlimit(100_000)  # Keras walks a model by recursion
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for depth in depths:
            model, times = chain(int(depth)), []
            for _ in range(4):
                start = time.perf_counter()
                export_onnx(model, pathlib.Path(folder, "chain.onnx"))
                times.append(time.perf_counter() - start)
            seconds[depth] = float(np.median(times[1:]))
    return seconds


def measure_latency(runtime: str, rounds: str, *paths: str) -> dict[str, dict]:
    """By file name: the milliseconds of a call and their ratio to those of the first file; or the error."""
    from tensorflow_quantization.export.verification.timing import interleaved, summary

    load = {"ONNX Runtime": load_onnxruntime, "OpenVINO": load_openvino}[runtime]
    calls, results = {}, {}
    for path in map(pathlib.Path, paths):
        try:
            call = load(path)
            call()
            calls[path.stem] = call
        except Exception as error:  # runtimes raise errors of all kinds for files that they do not like
            results[path.stem] = {"error": reason(error)}
    for name, milliseconds, ratio in summary(interleaved(calls, int(rounds))) if calls else []:
        results[name] = {"ms": milliseconds, "ratio": ratio}
    return results


def load_onnxruntime(path: pathlib.Path) -> Callable[[], object]:
    """A function that runs the file on one random image."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    feed = {entry.name: image(entry.shape)}
    return lambda: session.run(None, feed)


def load_openvino(path: pathlib.Path) -> Callable[[], object]:
    """A function that runs the file on one random image; loaded for a batch of one, as OpenVINO recommends."""
    import openvino

    model = openvino.Core().read_model(path)
    x = image([d.get_length() if d.is_static else None for d in model.inputs[0].partial_shape])
    model.reshape(x.shape)
    options = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([x])


def image(shape: list) -> np.ndarray:
    """Random numbers; unknown axes are 1."""
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    return np.random.default_rng(0).uniform(size=sizes).astype("float32")


def reason(error: Exception) -> str:
    """The line of an error that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "No conversion rule" in line or "nvalid" in line or "equired" in line]
    return f"{type(error).__name__}: {(telling or lines)[0][:240]}"


#: Of each process: Keras' exporter needs this backend, and what it is compared with has the same.
_run = functools.partial(run_step, __file__, variables={"KERAS_BACKEND": "tensorflow"})
STEPS = {"export": measure_export, "chains": measure_chains, "latency": measure_latency}


def figures_of(name: str, folder: pathlib.Path, exports: int, rounds: int) -> dict:
    """All figures of a network: "exports" by exporter, "files" by exporter, "latency" by runtime and exporter."""
    import onnx

    paths = {exporter: folder / f"{exporter}.onnx" for exporter in EXPORTERS}
    measured = collections.defaultdict(list)
    for _ in range(exports):
        for exporter, path in paths.items():
            measured[exporter].append(_run("export", exporter, name, path))
    medians = {e: {key: float(np.median([m[key] for m in ms])) for key in ms[0]} for e, ms in measured.items()}
    files = {e: {"bytes": p.stat().st_size, "nodes": len(onnx.load(p).graph.node)} for e, p in paths.items()}
    latency = {runtime: _run("latency", runtime, rounds, *paths.values()) for runtime in RUNTIMES}
    return {"exports": medians, "files": files, "latency": latency}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small network, few rounds: does it run, not how fast")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME", help="of the page")
    parser.add_argument("--docs", type=pathlib.Path, metavar="FOLDER", help="where the page goes")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, *rest = arguments.step
        result = STEPS[step](*rest)
        print("\n" + json.dumps(result))
        return

    from export_page import page

    names = (QUICK,) if arguments.quick else arguments.networks
    exports, rounds, depths = (1, 3, (10, 100)) if arguments.quick else (3, 100, (10, 100, 1000))
    results = {}
    for name in names:
        print(f"measuring {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            results[name] = figures_of(name, pathlib.Path(folder), exports, rounds)
    text = page(results, _run("chains", *depths), exports, rounds, THREADS)
    print(text)
    if arguments.docs:
        arguments.docs.mkdir(parents=True, exist_ok=True)
        (arguments.docs / "export.md").write_text(text)


if __name__ == "__main__":
    main()
