"""Calls TensorFlow's converter without its log messages."""

from __future__ import annotations

import itertools
import logging
import re
import warnings

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.function import Function
from tensorflow_quantization.export.litert.patches import with_long_biases, with_stored_kernels
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
    if function.wide:
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
    if io_dtype != "float32":
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io_dtype)
    try:
        # The converter logs the same messages for every model.
        with warnings.catch_warnings(), muted("absl", logging.ERROR):
            warnings.filterwarnings("ignore", module="tensorflow")
            data = converter.convert()
    except Exception as error:
        reason = _without_operator(function, error) or what_is_wrong(error)
        raise ExportError(f"TensorFlow's converter cannot convert the model: {reason}") from error
    data = with_long_biases(data) if function.wide else data
    return with_stored_kernels(data, function.stored) if function.stored else data


def _without_operator(function: Function, error: Exception) -> str | None:
    """The first operation that LiteRT does not have, with all layers that compute it; `None` if the error is another.

    The converter names the operation, not its layer.
    """
    rejected = re.search(r"'tf\.(\w+)' op is neither a custom op nor a flex op", str(error))
    if not rejected:
        return None
    names = [node.name for node in function.concrete.graph.get_operations() if node.type == rejected[1]]
    scopes = {scope for name in names for scope in itertools.accumulate(name.split("/"), "{}/{}".format)}
    layers = sorted({function.paths[scope] for scope in scopes & function.paths.keys()})
    if not layers:
        return None
    return (
        f"LiteRT has no operator {rejected[1]}, which {', '.join(map(repr, layers))} computes. Use other layers or "
        "functions of keras.ops there, or compute it outside the model."
    )
