"""What `calibrate` costs, against `predict` of the float model, and against the calibration of ONNX Runtime.

    python benchmarks/calibrate_time.py [--quick]

Contenders take turns in one process, with the same data in batches of 32, and each method of both toolkits. "cold"
includes what Keras compiles, which `calibrate` does at each call and `predict` at the first. "warm" is the time from
batch to batch. ONNX Runtime's `quantize_static` has the methods minmax,
percentile and entropy; only its calibration is timed.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np

from peers import input_name
from quantize_time import chain
from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.calibration import ESTIMATORS
from tensorflow_quantization.export.verification.timing import interleaved, summary
from tensorflow_quantization.text.tables import markdown_table

BATCH = 32


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.5, weights=None)


def cold_predict(model: keras.Model, data: np.ndarray) -> None:
    """`predict` of a model that has not predicted yet."""
    model.predict_function = None
    model.predict(data, batch_size=BATCH, verbose=0)


def onnxruntime_calibration(path: pathlib.Path, method: str, data: np.ndarray) -> None:
    """The calibration of `quantize_static`: the ranges of all tensors that it quantizes."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(data[i : i + BATCH] for i in range(0, len(data), BATCH))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {input_name(path): batch}

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory() as folder:
        augmented = str(pathlib.Path(folder, "augmented.onnx"))
        calibrator = create_calibrator(path, list(QDQRegistry), augmented, calibrate_method=methods[method])
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def per_batch(call: Callable[[Iterator[tuple[np.ndarray]]], object], batch: np.ndarray, count: int) -> float:
    """Returns the median seconds from batch to batch, in the second half of `count` batches."""
    stamps = []

    def batches():
        for _ in range(count):
            stamps.append(time.perf_counter())
            yield (batch,)

    call(batches())
    return float(np.median(np.diff(stamps)[count // 2 :]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small network, one round: does it run, not how fast")
    arguments = parser.parse_args()

    images, rounds, count = (32, 1, 8) if arguments.quick else (256, 3, 20)
    model = chain(5) if arguments.quick else mobilenet()
    quantized = quantize_model(model, target="onnxruntime")
    data = np.random.default_rng(0).random((images, *model.input_shape[1:]), "float32")
    calibrations = {method: functools.partial(calibrate, quantized, method=method, verbose=0) for method in ESTIMATORS}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "float.onnx")
        export_onnx(model, path)
        peer = [method for method in ESTIMATORS if method != "mse"]
        contenders: dict[str, Callable[[], object]] = {
            "predict, float": functools.partial(cold_predict, model, data),
            "predict, quantized": functools.partial(cold_predict, quantized, data),
            **{f"calibrate, {m}": functools.partial(call, data) for m, call in calibrations.items()},
            **{f"ONNX Runtime, {m}": functools.partial(onnxruntime_calibration, path, m, data) for m in peer},
        }
        cold = summary(interleaved(contenders, rounds, warmup=0))
    predict = functools.partial(model.predict, steps=count, verbose=0)
    rates = []
    for _ in range(rounds):  # each with a `predict` of its own beside it: the machine may be busy
        for method, call in calibrations.items():
            rates.append((method, per_batch(call, data[:BATCH], count) / per_batch(predict, data[:BATCH], count)))

    print(f"{model.name}, {images} images, {keras.backend.backend()}, {rounds} rounds, medians\n")
    print(markdown_table(["cold", "ms", "against predict"], [(n, f"{ms:.0f}", f"{r:.2f}") for n, ms, r in cold]))
    medians = [(name, f"{np.median([r for m, r in rates if m == name]):.2f}") for name in calibrations]
    print()
    print(markdown_table(["warm", "a batch against predict"], medians))


if __name__ == "__main__":
    main()
