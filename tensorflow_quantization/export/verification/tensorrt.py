"""Builds a written ONNX file with TensorRT for RTX. An engine runs on a GPU only, so no numbers are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tensorflow_quantization.export.errors import ExportError, VerificationError
from tensorflow_quantization.inspection.runtime import tensorrt_engine
from tensorflow_quantization.inspection.runtime.macs import static_shapes, with_input_shapes
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir

#: The runtimes that build a file here, but do not run it.
BUILDERS = ("tensorrt",)


def check_can_build(graph: LayerGraph, has_data: bool) -> None:
    """Check before any work that a file can be built.

    Args:
        graph: the flat graph of the model.
        has_data: whether there is input of the model, which has a size for each dimension.

    Raises:
        ExportError: the size of a dimension is unknown.
        ImportError: TensorRT for RTX is not installed.
    """
    for tensor in graph.inputs:
        if not has_data and None in tensor.shape[1:]:
            raise ExportError(
                f"verify_runtime='tensorrt' builds an engine for fixed shapes, and the input {tensor.name!r} has the "
                f"shape {tensor.shape}. Pass verify_with: the file is built for the shapes of its first batch."
            )
    try:
        tensorrt_engine.installed_version()
    except ImportError as error:
        raise ImportError(
            "verify_runtime='tensorrt' builds the file with TensorRT for RTX, which is not installed: "
            "pip install 'tensorflow-quantization[tensorrt]'"
        ) from error


def verify_builds(path: Path, inputs: Mapping[str, np.ndarray] | None, target: str | None) -> None:
    """Parse and build the file at `path`.

    Args:
        path: path of the file.
        inputs: one array for each input by name, for the shapes of which to build. `None`: the shapes in the file, with
            one sample.
        target: the target of the file; `None`: the default placement.

    Raises:
        VerificationError: TensorRT does not parse or build the file. The message names the node, whose name starts with
            the name of its Keras layer.
    """
    shapes = None if inputs is None else {name: array.shape for name, array in inputs.items()}
    try:
        tensorrt_engine.build(path, static_shapes(to_ir(with_input_shapes(read_onnx(path), shapes), path)))
    except RuntimeError as error:
        title = tensorrt_engine.installed_version()
        cure = (
            "" if target in (None, "tensorrt") else f"\nThe file is for {target!r}: quantize_model(target='tensorrt')."
        )
        raise VerificationError(f"{title} cannot build the file: {error}{cure}\nNo file was written.") from error
