"""`export_onnx`: check, lower, simplify, verify, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from tensorflow_quantization.export import validation
from tensorflow_quantization.export.errors import UnsupportedLayerError
from tensorflow_quantization.export.names import names_of_outputs
from tensorflow_quantization.export.onnx.composite import expand_composites
from tensorflow_quantization.export.onnx.lower import Lowered, QuantizedTensor, finish, lower, unsupported_layers
from tensorflow_quantization.export.onnx.metadata import MERGED_INTO
from tensorflow_quantization.export.onnx.passes import run_passes
from tensorflow_quantization.export.onnx.retarget import check_retargeted
from tensorflow_quantization.export.onnx.writing import save, to_model
from tensorflow_quantization.export.verification.keras_with_integers import inputs_to_verify
from tensorflow_quantization.export.verification.onnx import TOLERANCES, feeds, verify_onnx, verify_where_possible
from tensorflow_quantization.export.verification.onnx_runtimes import require_installed, runtime_for
from tensorflow_quantization.export.verification.processor import warn_if_saturated
from tensorflow_quantization.export.verification.tensorrt import BUILDERS, check_can_build, verify_builds
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.replacing import replacing


@suggests_arguments
def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    opset: int | None = None,
    input_layout: str = "channels_last",
    target: str | None = None,
    precision: str = "float32",
    verify_with: Any = None,
    verify_runtime: str | None = None,
) -> Path:
    """Write a Keras model, float or quantized, as an ONNX file, and return its path.

    Each quantized tensor becomes a QuantizeLinear and DequantizeLinear pair, and each quantized kernel is stored in
    int8, in INT4 if it has 4 bits or less and the file is for ONNX Runtime or OpenVINO, or in FP8. The rest of the file
    computes in `precision`; a model in mixed precision is written in float32, the dtype of its variables. A custom
    layer whose `call` uses layers and `keras.ops` is written as those layers and operations.
    Batch normalization is folded into the convolution or Dense layer before it. The name of a node starts with the name
    of its Keras layer. The batch axis is dynamic and has the name "batch", unless the model has a fixed batch size. An
    output has its key in the dict that the model returns, else the name of its layer in the float model, so the files
    of a float and of its quantized model have the same inputs and outputs. The file has the same bytes on each Keras
    backend, except for models that resize images with other than nearest or bilinear interpolation.

    Args:
        model: a built Keras 3 model.
        path: path of the file. An existing file is replaced when the new file is complete and verified.
        opset: the ONNX opset, an integer from 13. Default: `None`, the oldest opset that the model can use. FP8 needs
            opset 19, INT4 opset 21; if you pass an older one, kernels of integers are stored in int8.
        input_layout: "channels_last" (default): inputs have the shapes of the Keras model. "channels_first": inputs of
            rank 4 or 5 are (batch, channels, ...), so the file does not begin with a Transpose. Outputs always have
            the shapes of the Keras model.
        target: the runtime that the file is for: "tensorrt", "onnxruntime" or "openvino". Default: `None`, the target
            that the model was quantized for. For another target the same integers are written in the encoding of that
            runtime, if the conversion is exact. A warning names the operators that run in float there, because the
            model has no quantizers for them.
        precision: "float32" (default) or "float16": the dtype of everything that is not computed in integers, of
            float weights and of scales. Inputs and outputs are float32 in both cases, so that the files are
            interchangeable. Float16 scales need opset 19.
        verify_with: input of the model: arrays as `model.predict` takes them, or data that yields batches, of which
            the first 8 are used, see `calibrate`. The file runs on this input and is compared with the Keras model,
            which computes in float32, see `tensorflow_quantization.export.verification.onnx`. Default: `None`, no
            comparison.
        verify_runtime: the runtime of that comparison, "onnxruntime" or "openvino". Default: `None`, the target of
            the file if it is one of these and installed, else ONNX Runtime; a warning says if the target is not
            installed, or if the processor is the reason that it disagrees. Or "tensorrt": TensorRT for RTX also parses
            and builds the file, which needs no GPU, for the shapes of the first batch of `verify_with`; for one sample
            if there is none.

    Returns:
        The path of the file, a `pathlib.Path`.

    Raises:
        TypeError, ValueError: `model` is not a Keras model, is not built, or cannot be traced.
        OSError: `path` cannot be written.
        UnsupportedLayerError: a layer cannot be written as ONNX; the message lists all such layers.
        OpsetError: `opset` is unknown, or older than an operator of the model.
        VerificationError: the file disagrees with the Keras model, or TensorRT does not build it.
        ExportError: another argument is wrong, weights or ranges are not finite, float16 cannot hold a weight or a
            scale, the model is in FP8 and `target` or `verify_runtime` is not, `target` does not load its weights in
            blocks, or `target` has no exact encoding. This is the base class of the three errors above; after each, an
            existing file is unchanged.
        ImportError: `verify_runtime` is not installed; or `verify_with` is given, and ONNX Runtime is not.

    Examples:
        >>> quantized = quantize_model(model, target="onnxruntime")
        >>> quantized = calibrate(quantized, images, verbose=0)
        >>> export_onnx(quantized, "small.onnx", verify_with=images).name
        'small.onnx'
    """
    path = validation.check_path(path)
    validation.check_input_layout(input_layout)
    validation.check_opset(opset)
    validation.check_target(target)
    validation.check_precision(precision)
    validation.check_verify_runtime(verify_runtime, verify_with)
    graph = LayerGraph.trace(model)
    output_names = names_of_outputs(graph)
    graph = graph.flatten().live()
    runtime = target or _target(graph)
    validation.check_runtime_dtypes(graph, runtime, verify_runtime)
    validation.check_blocks(graph, runtime)
    builds = verify_runtime in BUILDERS
    if builds:
        check_can_build(graph, verify_with is not None)
        verify_runtime = None
    if verify_with is not None:
        verify_with = inputs_to_verify(graph, verify_with)
        verifier = verify_runtime or runtime_for(runtime)
        require_installed(verifier)
    validation.check_exportable(graph)
    validation.check_finite(graph)
    validation.warn_unseen(graph)
    graph, lowered = lower_with_passes(graph, output_names, opset, input_layout, runtime, precision)
    onnx_model = to_model(finish(lowered), runtime)
    with replacing(path) as temporary:
        save(onnx_model, temporary)
        if builds:
            verify_builds(temporary, None if verify_with is None else feeds(lowered, verify_with[0]), runtime)
        if verify_with is not None:
            verify = verify_onnx if verify_runtime else verify_where_possible
            verify(temporary, graph, lowered, verify_with, TOLERANCES[precision], verifier)
            if runtime == verifier == "onnxruntime":
                warn_if_saturated(temporary, [feeds(lowered, batch) for batch in verify_with])
        if target not in (None, _target(graph)):
            check_retargeted(temporary, target)
    return path


def lower_with_passes(
    graph: LayerGraph,
    output_names: Sequence[str],
    opset: int | None,
    input_layout: str,
    runtime: str | None,
    precision: str,
) -> tuple[LayerGraph, Lowered]:
    """Returns a flat graph with its composite layers expanded, and the ONNX graph of it as it is written.

    Args:
        graph: the flat graph of the model.
        output_names: see `names_of_outputs`.
        opset, input_layout, precision: see `export_onnx`.
        runtime: the runtime that the file is for, or `None`.

    Raises:
        UnsupportedLayerError: a layer cannot be written as ONNX.
        OpsetError, ExportError: see `export_onnx`.
    """
    graph, untraceable = expand_composites(graph)
    unsupported = unsupported_layers(graph, untraceable)
    if unsupported:
        raise UnsupportedLayerError(unsupported)
    lowered = lower(graph, opset, input_layout, output_names, runtime, untraceable)
    run_passes(lowered.builder, runtime, precision)
    lowered.quantized = [_as_merged(quantized) for quantized in lowered.quantized]
    return graph, lowered


def _as_merged(quantized: QuantizedTensor) -> QuantizedTensor:
    """A quantizer with the integers of the equal quantizer that the passes kept, if they merged it."""
    kept = quantized.integers.onnx.meta.get(MERGED_INTO)
    return quantized if kept is None else replace(quantized, integers=quantized.integers.with_onnx(kept))


def _target(graph: LayerGraph) -> str | None:
    """The name of the target that the model was quantized for; `None` for a float model."""
    return next((target for target in validation.targets_of(graph) if target is not None), None)
