"""The float model of `quantize`: checks before any work, and the file that the quantized file is compared with."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from shlex import quote

import keras

from tensorflow_quantization import export_onnx
from tensorflow_quantization.export.litert.recurrence import check_recurrence, unrolled
from tensorflow_quantization.export.onnx.refusals import check_numbers
from tensorflow_quantization.export.verification.onnx_runtimes import DEFAULT_RUNTIME, RUNTIMES
from tensorflow_quantization.export.verification.processor import saturates
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.text.messages import what_is_wrong
from tensorflow_quantization.text.warn import muted
from tensorflow_quantization_cli import results
from tensorflow_quantization_cli.files import require


def runtime_here(target: str) -> str:
    """Returns the runtime that verifies files for a target.

    Raises:
        ValueError: files for the target cannot be written on this backend.
        ImportError: the runtime is not installed.
    """
    backend = keras.backend.backend()
    if target == "litert" and backend != "tensorflow":
        raise ValueError(
            f"TensorFlow writes .tflite files, and this is the backend {backend!r}: set KERAS_BACKEND=tensorflow."
        )
    runtime = target if target in (*RUNTIMES, "litert") else DEFAULT_RUNTIME
    require(runtime)
    return runtime


def check_float(model: keras.Model, path: str) -> None:
    """Checks a float model before any data is read.

    Raises:
        ValueError: the model is quantized already, or works on strings.
    """
    if any(isinstance(layer, ActivationQuantizer | WeightQuantizer) for layer in sublayers(model)):
        raise ValueError(
            f"{path} is quantized already. Pass the float model; or write this one as a file: tensorflow-quantization "
            f"export {quote(path)} model.onnx"
        )
    check_numbers(LayerGraph.trace(model).flatten().live())


def check_steps(model: keras.Model, target: str) -> None:
    """Raises: ExportError: the model has recurrent layers that the file for the target cannot hold."""
    if target == "litert":
        check_recurrence(LayerGraph.trace(model).flatten().live())


def warn_of_saturation(runtime: str, weight_bits: int | None) -> None:
    """Warns if the runtime saturates on this processor, so that the figures here are worse than on others."""
    if runtime in RUNTIMES and saturates(runtime, weight_bits or 8):
        results.warn(
            f"This processor has no VNNI: {runtime} saturates sums of 8-bit products on it, so the file computes less "
            "exactly here than elsewhere. If it is for processors like this one, pass --weight-bits 7."
        )


def warn_of_floats(target: str, activation_bits: int | None) -> None:
    """Warns if the target multiplies floats instead of integers of so few bits."""
    if target == "onnxruntime" and (activation_bits or 8) < 8:
        results.warn(
            "onnxruntime multiplies floats where activations have less than 8 bits, so the file will not be faster. "
            "Leave --activation-bits out, or pass --target openvino."
        )


def export_float(model: keras.Model, path: Path) -> Path:
    """Writes the float model, and returns the path of the file.

    Raises:
        ValueError: the model has a layer that cannot be written.
    """
    if path.suffix == ".onnx":
        return export_onnx(model, path)
    try:
        graph = LayerGraph.trace(model).flatten().live()
        with warnings.catch_warnings(), muted("absl", logging.ERROR), unrolled(graph):
            warnings.filterwarnings("ignore", module="tensorflow")
            model.export(path, format="litert", verbose=False)
    except Exception as error:  # TensorFlow's converter raises errors of many classes
        raise ValueError(f"TensorFlow's converter cannot convert the model: {what_is_wrong(error)}") from error
    return path
