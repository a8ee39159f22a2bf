"""`latency_in`: measures models in a runtime, through the export."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from tensorflow_quantization.export import export_onnx
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES, require_installed
from tensorflow_quantization.onnx_graph.files import read_onnx
from tensorflow_quantization.text.messages import must_be_one_of

#: Runs that are not counted, and runs of which the median counts.
_WARM_UP, _RUNS = 5, 50


def latency_in(runtime: str, inputs: list[np.ndarray]) -> Callable[[keras.Model], float]:
    """Returns a function that exports a model and returns the median latency of its file in seconds.

    Args:
        runtime: "onnxruntime" or "openvino".
        inputs: what the file runs on, an array for each input.

    Raises:
        ValueError: no such runtime runs here.
        ImportError: it is not installed.
    """
    if runtime not in RUNTIMES:
        raise ValueError(must_be_one_of("measure", RUNTIMES, runtime, "a function of the quantized model"))
    require_installed(runtime)

    def measure(model: keras.Model) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(model, Path(folder) / "model.onnx")
            names = [value.name for value in read_onnx(path).graph.input]
            run, feeds = RUNTIMES[runtime].load(path, []), dict(zip(names, inputs, strict=True))
            seconds = []
            for _ in range(_WARM_UP + _RUNS):
                start = time.perf_counter()
                run(feeds)
                seconds.append(time.perf_counter() - start)
        return float(np.median(seconds[_WARM_UP:]))

    return measure
