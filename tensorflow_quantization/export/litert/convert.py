"""Calls TensorFlow's converter without its log messages."""

from __future__ import annotations

import logging
import warnings

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.function import Function
from tensorflow_quantization.text.messages import what_is_wrong
from tensorflow_quantization.text.warn import muted


def convert(function: Function, io_dtype: str = "float32") -> bytes:
    """The bytes of the `.tflite` file of a model.

    Raises:
        ExportError: the converter rejects the model.
    """
    import tensorflow as tf

    owner = tf.Module()
    # With an owner, the converter uses a SavedModel, which keeps the names of inputs and outputs as a signature.
    owner.function, owner.kernels = function.concrete, function.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.concrete], owner)
    # No calibration set: the function has the ranges.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if io_dtype == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        # The converter logs the same messages for every model.
        with warnings.catch_warnings(), muted("absl", logging.ERROR):
            warnings.filterwarnings("ignore", module="tensorflow")
            return converter.convert()
    except Exception as error:
        raise ExportError(f"TensorFlow's converter cannot convert the model: {what_is_wrong(error)}") from error
