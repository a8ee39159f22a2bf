"""Read an ONNX file that somebody else may have written, with errors that say what is wrong with it."""

from __future__ import annotations

import os
import pathlib

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import inliner


def read_onnx(path: str | os.PathLike) -> onnx.ModelProto:
    """The model without the data of external tensors, its local functions inlined.

    Args:
        path: an `.onnx` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a directory, or not an ONNX model.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory; give the path of an .onnx file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".tflite":
        raise ValueError(f"{path} is a LiteRT file, not ONNX; ONNX files only.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError; its class depends on protobuf's implementation
        raise ValueError(f"{path} is not an ONNX model: {error}") from error
    # Protobuf reads many files that are none of its own as an empty message.
    if not model.ir_version or not model.opset_import:
        raise ValueError(f"{path} is not an ONNX model: it has no IR version or no opset.")
    return inliner.inline_local_functions(model) if model.functions else model


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with the shapes that ONNX can infer; where it finds a contradiction, as it was."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return model


def to_ir(model: onnx.ModelProto, path: str | os.PathLike) -> ir.Model:
    """The same as an `onnx_ir.Model`, whose external tensors are read, when asked for, from beside `path`."""
    converted = ir.from_proto(model)
    ir.external_data.set_base_dir(converted.graph, pathlib.Path(path).resolve().parent)
    return converted
