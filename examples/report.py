"""What the quickstart prints at its end: each model in Keras and, as an ONNX file, in ONNX Runtime."""

import pathlib
import time
from dataclasses import dataclass

import keras
import numpy as np
import onnxruntime

from tensorflow_quantization.export.verification.processor import saturates
from tensorflow_quantization.text.tables import text_table

BATCH = 500
#: Makes ONNX Runtime add in 32 bits on x86 processors without VNNI.
PRECISE = ("session.x64quantprecision", "1")


@dataclass
class Result:
    """What one model does with the test set."""

    name: str
    path: pathlib.Path
    keras_accuracy: float
    runtime_accuracy: float
    disagreements: int


def evaluate(name: str, model: keras.Model, path: pathlib.Path, x: np.ndarray, y: np.ndarray) -> Result:
    """Classify all of `x` with a model and with the file it was exported to."""
    print(f"{name}: {len(x)} test images in Keras and in ONNX Runtime")
    session = open_session(path)
    inputs = session.get_inputs()[0].name
    in_runtime = [session.run(None, {inputs: x[i : i + BATCH]})[0] for i in range(0, len(x), BATCH)]
    in_keras = model.predict(x, batch_size=BATCH, verbose=0).argmax(-1)
    in_runtime = np.concatenate(in_runtime).argmax(-1)
    return Result(name, path, np.mean(in_keras == y), np.mean(in_runtime == y), np.sum(in_keras != in_runtime))


def print_table(results: list[Result], image: np.ndarray) -> None:
    """A row a model; the latency is that of one image, a batch of one."""
    latencies = median_latencies([result.path for result in results], image)
    titles = ["model", "Keras", "ONNX Runtime", "top-1 differs", "size", "latency", "file"]
    rows = [
        (
            result.name,
            f"{result.keras_accuracy:.2%}",
            f"{result.runtime_accuracy:.2%}",
            result.disagreements,
            f"{result.path.stat().st_size / 1000:.0f} kB",
            f"{1000 * latency:.2f} ms",
            result.path,
        )
        for result, latency in zip(results, latencies, strict=True)
    ]
    print("\n" + text_table(titles, rows))
    if saturates("onnxruntime"):
        print(
            "\nThis processor has no VNNI: as it comes, ONNX Runtime adds 8-bit products in 16 bits here and saturates."
            f"\nIts session entry {PRECISE[0]!r} made it exact here, but slower. quantize_model(..., weight_bits=7) is"
            "\nexact and fast."
        )


def median_latencies(paths: list[pathlib.Path], image: np.ndarray, rounds: int = 500) -> list[float]:
    """Median seconds of one run of each file. The files take turns, so that a busy machine slows all alike."""
    sessions = [open_session(path) for path in paths]
    feeds = [{session.get_inputs()[0].name: image} for session in sessions]
    seconds = np.zeros((rounds, len(paths)))
    for row in seconds:
        for i, (session, feed) in enumerate(zip(sessions, feeds, strict=True)):
            start = time.perf_counter()
            session.run(None, feed)
            row[i] = time.perf_counter() - start
    return list(np.median(seconds[rounds // 10 :], axis=0))


def open_session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU, as it comes where it does not saturate."""
    options = onnxruntime.SessionOptions()
    if saturates("onnxruntime"):
        options.add_session_config_entry(*PRECISE)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
