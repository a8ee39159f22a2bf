"""`latency_in`: measures models in a runtime, through the export."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from tensorflow_quantization.export import export_onnx
from tensorflow_quantization.export.verification.latency import median_latencies
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES, require_installed
from tensorflow_quantization.onnx_graph.files import read_onnx
from tensorflow_quantization.text.messages import must_be_one_of


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
            return median_latencies(runtime, [(path, dict(zip(names, inputs, strict=True)))])[0]

    return measure
