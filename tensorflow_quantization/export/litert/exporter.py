"""`export_litert`: check, trace, convert, verify, write."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import keras

from tensorflow_quantization.export import validation
from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.attention import is_projected
from tensorflow_quantization.export.litert.convert import convert
from tensorflow_quantization.export.litert.file import float_ends, float_operators, is_whole
from tensorflow_quantization.export.litert.function import make_function
from tensorflow_quantization.export.litert.ranges import check_ranges
from tensorflow_quantization.export.litert.recurrence import check_recurrence
from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.export.verification.keras_with_integers import inputs_to_verify
from tensorflow_quantization.export.verification.litert import require_installed, verify_litert
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.precision import check_float32
from tensorflow_quantization.quantizers.scheme import WIDE_BITS
from tensorflow_quantization.targets import DEFAULT, TARGETS
from tensorflow_quantization.targets.litert import LITERT
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import must_be_one_of
from tensorflow_quantization.text.replacing import replacing
from tensorflow_quantization.text.warn import warn_user
from tensorflow_quantization.wrappers import activation_quantizers, float_path, weight_quantizers_in
from tensorflow_quantization.wrappers.attention import AttentionBaseQuantizeWrapper

IO_DTYPES = ("float32", "int8", "int16")
_ADVICE = 'Quantize the float model with quantize_model(model, target="litert") and train or calibrate it.'


@suggests_arguments
def export_litert(
    model: keras.Model, path: str | os.PathLike, *, io_dtype: str = "float32", verify_with: Any = None
) -> Path:
    """Write a model quantized with `target="litert"` as an integer `.tflite` file, and return its path.

    The file uses the ranges of the model: the converter needs no calibration set. The file has one signature. Its
    inputs have the names of the model's inputs. Its outputs have the keys of the dict that the model returns; outputs
    that no dict holds are named `output_0`, `output_1`, .... Batch normalization is folded. An operator computes in
    float if LiteRT has no integer kernel for it or the model does not quantize its tensors; a warning names these
    operators. TensorFlow's converter writes the file, so Keras must run on the TensorFlow backend.

    Args:
        model: a model that `quantize_model(..., target="litert")` returned, trained or calibrated.
        path: path of the file. An existing file is replaced when the new file is complete and verified.
        io_dtype: "float32" (default): inputs and outputs are float32, and the file quantizes and dequantizes them.
            "int8": inputs and outputs are int8, and the file stores their scale and zero point. "int16": the same for a
            model with `activation_bits=16`.
        verify_with: input of the model: arrays as `model.predict` takes them, or data that yields batches, of which
            the first 8 are used, see `calibrate`. The file runs on this input in LiteRT and is compared with the Keras
            model, see `tensorflow_quantization.export.verification.litert`. Default: `None`, no comparison.

    Returns:
        The path of the file, a `pathlib.Path`.

    Raises:
        TypeError, ValueError: `model` is not a Keras model, is not built, or cannot be traced.
        OSError: `path` cannot be written.
        ExportError: Keras runs on another backend; the model is not quantized for LiteRT, computes in half precision,
            has quantizers with other than 8 bits, or 16 of all activations, quantizes the inside of attention layers,
            has recurrent layers with an unknown number of steps, has weights or ranges that are not finite, or has
            ranges that LiteRT cannot compute with; a layer in float reads an output with another `io_dtype`; or the
            converter rejects the model.
        VerificationError: the file disagrees with the Keras model. After this error, and after each error above, an
            existing file is unchanged.
        ImportError: TensorFlow is not installed, or `verify_with` is given and `ai-edge-litert` is not installed.

    Examples:
        >>> quantized = quantize_model(model, target="litert")
        >>> quantized = calibrate(quantized, images, verbose=0)
        >>> if keras.backend.backend() == "tensorflow":
        ...     path = export_litert(quantized, "model.tflite")
    """
    path = validation.check_path(path, ".tflite")
    _check_io_dtype(io_dtype)
    _check_backend()
    graph = LayerGraph.trace(model).flatten().live()
    if verify_with is not None:
        verify_with = inputs_to_verify(graph, verify_with)
        require_installed()
    validation.check_no_keras_quantization(graph)
    validation.check_exportable(graph)
    check_quantized(graph)
    _check_attention(graph)
    check_recurrence(graph)
    _check_bits(graph, io_dtype)
    _check_weights(graph)
    _check_precision(graph)
    validation.check_finite(graph)
    check_ranges(graph)
    validation.warn_unseen(graph)
    data = convert(make_function(graph, io_dtype), io_dtype)
    if io_dtype != "float32":
        _check_ends(data, graph, io_dtype)
    _warn_floats(float_operators(data, [plain_name(call.path) for call in graph.calls]))
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        if verify_with is not None:
            gc.collect()  # TensorFlow's functions are in reference cycles and hold copies of the weights
            verify_litert(data, graph, verify_with)
    return path


def _check_io_dtype(io_dtype: str) -> None:
    if io_dtype not in IO_DTYPES:
        raise ExportError(must_be_one_of("io_dtype", IO_DTYPES, io_dtype))


def _check_backend() -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ExportError(
            f"export_litert works on the TensorFlow backend of Keras, and this is {backend!r}. Save the model with "
            "model.save(path), and load and export it in a process with KERAS_BACKEND=tensorflow."
        )


def check_quantized(graph: LayerGraph) -> None:
    """Checks that a model is quantized for LiteRT.

    Args:
        graph: the flat graph of the model.

    Raises:
        ExportError: the model has no quantizers, or those of another target.
    """
    if not any(activation_quantizers(c.operation) or weight_quantizers_in(c.operation) for c in graph.calls):
        raise ExportError(f"Model {graph.model.name!r} has no quantizers. {_ADVICE}")
    targets = set(validation.targets_of(graph))
    others = targets & {target.name for target in (DEFAULT, *TARGETS.values()) if target is not LITERT}
    if others and targets == others:  # a custom target may suit LiteRT
        raise ExportError(
            f"Model {graph.model.name!r} is quantized for target {', '.join(map(repr, others))}, and LiteRT needs "
            f"other quantizers. {_ADVICE}"
        )


def _check_attention(graph: LayerGraph) -> None:
    for call in graph.calls:
        wrapper = call.operation
        if not isinstance(wrapper, AttentionBaseQuantizeWrapper):
            continue
        quantizers = [q for q in wrapper.activation_quantizers if q is not wrapper.output_quantizer]
        inside = bool(quantizers) or any(part.weight_quantizers for part in wrapper.parts.values())
        if inside and not is_projected(wrapper):
            raise ExportError(
                f"Layer {call.path!r} has quantized products of activations, which are exported to LiteRT in floats "
                "only. Leave its entry out of the QuantizationSpec."
            )


def _check_bits(graph: LayerGraph, io_dtype: str) -> None:
    """Raise: ExportError: weights have not 8 bits, or activations neither 8 nor 16 as all others and `io_dtype`."""
    activations = {_bits(q) for call in graph.calls for q in activation_quantizers(call.operation)}
    wide = activations == {f"{WIDE_BITS} bits"}
    others = {}
    for call in graph.calls:
        bits = {_bits(q) for q in getattr(call.operation, "weight_quantizers", {}).values()} - {"8 bits"}
        bits |= {_bits(q) for q in activation_quantizers(call.operation)} - ({"16 bits"} if wide else {"8 bits"})
        if bits:
            others[call.path] = f"  {call.path}: {', '.join(sorted(bits))}"
    if others:
        raise ExportError(
            "LiteRT computes in integers of 8 bits, or of 16 for all activations of a model, but these layers have "
            "quantizers with others:\n" + "\n".join(others.values())
        )
    dtype = "int16" if wide else "int8"
    if io_dtype not in ("float32", dtype):
        raise ExportError(f"io_dtype={io_dtype!r}, but the model has activations of {dtype}. Pass that.")


def _bits(quantizer: Any) -> str:
    scheme = quantizer.scheme
    return scheme.name if scheme.floating else f"{scheme.bits} bits"


def _check_weights(graph: LayerGraph) -> None:
    """Raise: ExportError: weights have other scales than the converter gives each channel."""
    others = {}
    for call in graph.calls:
        for name, quantizer in getattr(call.operation, "weight_quantizers", {}).items():
            if how := _unlike_litert(quantizer):
                others[call.path] = f"  {call.path}: {name} {how}"
    if others:
        raise ExportError(
            "LiteRT's files have weights with one scale per output channel, from its greatest weight, and no zero "
            "point, but these layers have others:\n"
            + "\n".join(others.values())
            + "\nQuantize without block_size and weight_ranges. In a QuantizeConfig, pass "
            "per_axis=True and symmetric=True to the quantizer of the weights: the new model keeps a training with "
            "new.set_weights(model.get_weights())."
        )


def _unlike_litert(quantizer: Any) -> str | None:
    """How a quantizer of weights differs from what the converter writes; `None` if it does not."""
    if quantizer.scheme.axis is None:
        return "per tensor"
    if quantizer.scheme.block_size is not None:
        return "in blocks"
    if not quantizer.scheme.symmetric:
        return "with a zero point"
    return "with a learned step" if getattr(quantizer, "learns", False) else None


def _check_precision(graph: LayerGraph) -> None:
    try:
        check_float32(graph, "LiteRT", float_path)
    except ValueError as error:
        raise ExportError(str(error)) from error


def _check_ends(data: bytes, graph: LayerGraph, io_dtype: str) -> None:
    """Raise: ExportError: the converter removed what other operators read. Warn of inputs and outputs in float."""
    if not is_whole(data):
        raise ExportError(
            f"An output of model {graph.model.name!r} is also read by a layer that computes in float, and TensorFlow's "
            f"converter writes no such file with io_dtype={io_dtype!r}. Leave io_dtype out."
        )
    if floats := float_ends(data):
        warn_user(
            f"{floats} of the inputs and outputs stay float32 in spite of io_dtype={io_dtype!r}: the layers next to "
            "them compute in float."
        )


def _warn_floats(found: dict[str, list[str]]) -> None:
    if found:
        rows = [f"{', '.join(dict.fromkeys(kinds))} in {layer!r}" for layer, kinds in found.items()]
        more = f" and {len(rows) - 5} more layers" if len(rows) > 5 else ""
        warn_user(
            f"{sum(map(len, found.values()))} operators of the file compute in floats, because LiteRT has no integer "
            f"kernel for them or the model does not quantize their inputs or outputs: {'; '.join(rows[:5])}{more}."
        )
