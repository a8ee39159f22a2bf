"""Converts SavedModel directories, which hold TensorFlow functions and no Keras layers, with tf2onnx."""

from __future__ import annotations

import os
from pathlib import Path

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.validation import check_opset, check_path
from tensorflow_quantization.text.replacing import replacing

#: tf2onnx is tested with this opset, and every runtime reads it.
_OPSET = 17
_SIGNATURE = "serving_default"


def convert_saved_model_directory(
    saved_model: str | os.PathLike, path: str | os.PathLike, opset: int | None = None
) -> Path:
    """Write the serving signature of a SavedModel as an ONNX file, and return its path.

    A SavedModel has no quantizers. The file of a quantized model computes the same numbers, but it has no
    QuantizeLinear, so every runtime executes it in float. Save a quantized model as `.keras` and use `export_onnx`.

    Args:
        saved_model: the directory that `model.export(directory)` wrote.
        path: path of the ONNX file. An existing file is replaced when the new file is complete.
        opset: the ONNX opset. Default: `None`, opset 17.

    Returns:
        The path of the file.

    Raises:
        ImportError: tf2onnx is not installed.
        OSError: `path` cannot be written.
        ExportError: the directory cannot be read, or it has an operation that tf2onnx does not know.
    """
    path = check_path(path)
    check_opset(opset)
    try:
        from tf2onnx import convert, tf_loader
    except ImportError as error:
        raise ImportError(
            "Converting a SavedModel directory needs tf2onnx and TensorFlow: pip install tf2onnx tensorflow. A .keras "
            "file needs neither."
        ) from error
    with replacing(path) as temporary:
        try:
            graph_def, inputs, outputs = tf_loader.from_saved_model(
                os.fspath(saved_model), None, None, tag="serve", signatures=[_SIGNATURE]
            )
            convert.from_graph_def(
                graph_def,
                name=Path(saved_model).name,
                input_names=inputs,
                output_names=outputs,
                opset=opset or _OPSET,
                output_path=os.fspath(temporary),
            )
        except Exception as error:
            raise ExportError(f"tf2onnx cannot convert {os.fspath(saved_model)!r}: {error}") from error
    return path
