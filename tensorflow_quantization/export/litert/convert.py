"""TensorFlow's converter, kept quiet."""

from __future__ import annotations

import logging
import warnings

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.function import Function
from tensorflow_quantization.text.warn import muted


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
        # What it says of every model.
        with warnings.catch_warnings(), muted("absl", logging.ERROR):
            warnings.filterwarnings("ignore", module="tensorflow")
            return converter.convert()
    except Exception as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise ExportError(f"TensorFlow's converter cannot convert the model: {lines[0]}") from error
