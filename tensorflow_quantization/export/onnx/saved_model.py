"""SavedModel directories, which hold TensorFlow functions and no Keras layers: through tf2onnx."""

from __future__ import annotations

import os
from pathlib import Path

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.onnx.writing import replacing
from tensorflow_quantization.export.validation import check_opset, check_path

#: What tf2onnx is tested with and every runtime reads.
_OPSET = 17
_SIGNATURE = "serving_default"


def convert_saved_model_directory(
    saved_model: str | os.PathLike, path: str | os.PathLike, opset: int | None = None
) -> Path:
    """Write the serving signature of a SavedModel as ONNX.

    Such a directory has no quantizers any more: of a quantized model, the file computes the same numbers but has no
    QuantizeLinear, and no runtime executes it in integers. Save as `.keras` for that.

    Args:
        saved_model: the directory, as `model.export(directory)` writes it.
        path: of the ONNX file.
        opset: its opset; 17 by default.

    Raises:
        ImportError: tf2onnx is not installed.
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
