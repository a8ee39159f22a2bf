"""TensorFlow's converter, kept quiet."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.function import Function


def convert(function: Function, io_dtype: str = "float32") -> bytes:
    """A model as the bytes of a `.tflite` file.

    Raises:
        ExportError: the converter does not take it.
    """
    import tensorflow as tf

    owner = tf.Module()
    # An owner makes the converter go through a SavedModel, and so keep the names of inputs and outputs as a signature.
    owner.function, owner.kernels = function.concrete, function.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.concrete], owner)
    # No representative data: the ranges are those in the function.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if io_dtype == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        with _quiet():
            return converter.convert()
    except Exception as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise ExportError(f"TensorFlow's converter cannot convert the model: {lines[0]}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter says of every model; its errors are raised."""
    logger = logging.getLogger("absl")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="tensorflow")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
