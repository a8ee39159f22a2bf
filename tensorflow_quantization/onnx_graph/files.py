"""Read an ONNX file from any tool, with errors that say what is wrong with the file."""

from __future__ import annotations

import os
import pathlib

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import inliner


def read_onnx(path: str | os.PathLike) -> onnx.ModelProto:
    """The model in a file, with local functions inlined and external tensors not loaded.

    Args:
        path: the path of an `.onnx` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the path is a directory, or the file is not an ONNX model.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory; pass the path of an .onnx file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".tflite":
        raise ValueError(f"{path} is a LiteRT file; pass the path of an .onnx file.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError; its class depends on protobuf's implementation
        raise ValueError(f"{path} is not an ONNX model: {error}") from error
    # Protobuf reads many other files without an error, as an empty message.
    if not model.ir_version or not model.opset_import:
        raise ValueError(f"{path} is not an ONNX model: it has no IR version or no opset.")
    return inliner.inline_local_functions(model) if model.functions else model


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes that ONNX infers; `model` itself if ONNX finds a contradiction."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return model


def to_ir(model: onnx.ModelProto, path: str | os.PathLike) -> ir.Model:
    """The model as an `onnx_ir.Model` that loads external tensors from the folder of `path` when they are needed."""
    converted = ir.from_proto(model)
    ir.external_data.set_base_dir(converted.graph, pathlib.Path(path).resolve().parent)
    return converted
