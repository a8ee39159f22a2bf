"""`export_onnx`: check, lower, simplify, verify, write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from tensorflow_quantization.export import validation
from tensorflow_quantization.export.errors import UnsupportedLayerError
from tensorflow_quantization.export.onnx.composite import expand_composites
from tensorflow_quantization.export.onnx.lower import finish, lower, names_of_outputs, unsupported_layers
from tensorflow_quantization.export.onnx.passes import run_passes
from tensorflow_quantization.export.onnx.retarget import check_retargeted
from tensorflow_quantization.export.onnx.writing import replacing, save, to_model
from tensorflow_quantization.export.verification.onnx import TOLERANCES, verify_onnx
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.wrappers import BaseQuantizeWrapper


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    opset: int | None = None,
    input_layout: str = "channels_last",
    target: str | None = None,
    precision: str = "float32",
    verify_with: Any = None,
    verify_runtime: str = "onnxruntime",
) -> Path:
    """Write a Keras model, float or quantized, as an ONNX file.

    The file computes in float32 (a mixed-precision model too: its variables are float32), or in float16 if asked to,
    and, where the model is quantized, holds QuantizeLinear and DequantizeLinear pairs and int8 weights. A layer of
    your own that is made of layers and `keras.ops` is written as these. Batch normalization is folded into what it
    follows. Node names start with the name of the Keras layer. The batch size stays dynamic and is called "batch",
    unless the model fixes it. The same model gives the same bytes on every Keras backend.

    Args:
        model: any built Keras 3 model.
        path: of the file; one that exists is replaced once the new one is complete and verified.
        opset: the ONNX opset, 13 or newer; `None` takes the least that the model needs.
        input_layout: "channels_last": inputs as the Keras model takes them. "channels_first": inputs of four or five
            axes as (batch, channels, ...), which saves the one Transpose that the file else begins with. Outputs are
            always as in Keras.
        target: the runtime to suit, "tensorrt", "onnxruntime" or "openvino"; `None` is the one that the model was
            quantized for. Another one gets the same integers in its own encoding where that is exact; a warning names
            the tensors that it would want quantized too, for which training gave no range.
        precision: "float32" or "float16": in what the file computes where it does not compute in integers, and in what
            it holds weights and scales. Inputs and outputs are float32 in both, cast where they enter and leave, so
            that one file can stand in for the other. Float16 scales need opset 19. Weights that float16 cannot hold,
            and scales that would become zero, are an error.
        verify_with: input as `predict` takes it; the file is run on it in a runtime and compared with Keras, see
            `tensorflow_quantization.export.verification.onnx`.
        verify_runtime: which one, "onnxruntime" or "openvino".

    Returns:
        The path.

    Raises:
        TypeError, ValueError: `model` is no Keras model, not built, or cannot be traced.
        OSError: `path` cannot be written.
        ExportError: in its subclasses `UnsupportedLayerError`, `OpsetError`, `VerificationError` or itself; see there.
            Each leaves what was at `path` as it was.
        ImportError: `verify_with` is given and the runtime is not installed.
    """
    path = validation.check_path(path)
    validation.check_input_layout(input_layout)
    validation.check_opset(opset)
    validation.check_target(target)
    validation.check_precision(precision)
    validation.check_verify_runtime(verify_runtime)
    graph = LayerGraph.trace(model).flatten().live()
    output_names = names_of_outputs(graph)
    validation.check_finite(graph)
    graph, untraceable = expand_composites(graph)
    unsupported = unsupported_layers(graph, untraceable)
    if unsupported:
        raise UnsupportedLayerError(unsupported)
    validation.warn_unseen(graph)
    lowered = lower(graph, opset, input_layout, output_names)
    runtime = target or _target(graph)
    run_passes(lowered.builder, runtime, precision)
    onnx_model = to_model(finish(lowered), runtime)
    with replacing(path) as temporary:
        save(onnx_model, temporary)
        if verify_with is not None:
            verify_onnx(temporary, graph, lowered, verify_with, TOLERANCES[precision], verify_runtime)
        if target not in (None, _target(graph)):
            check_retargeted(temporary, target)
    return path


def _target(graph: LayerGraph) -> str | None:
    """The runtime that a model is quantized for, as its wrappers remember."""
    return next((c.operation.target for c in graph.calls if isinstance(c.operation, BaseQuantizeWrapper)), None)
