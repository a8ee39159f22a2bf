"""Checks of the arguments and of the model before an export starts."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import onnx

from tensorflow_quantization.export.errors import ExportError, OpsetError
from tensorflow_quantization.export.onnx.builder import MIN_OPSET
from tensorflow_quantization.export.onnx.emission import to_numpy
from tensorflow_quantization.export.onnx.lower import INPUT_LAYOUTS
from tensorflow_quantization.export.verification.onnx import TOLERANCES
from tensorflow_quantization.export.verification.onnx_runtimes import DEFAULT_RUNTIME, RUNTIMES
from tensorflow_quantization.export.verification.tensorrt import BUILDERS
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.weights import mode_of_keras
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets import TARGETS
from tensorflow_quantization.text.messages import is_path, must_be_one_of, must_be_path, shortened
from tensorflow_quantization.text.replacing import check_writable
from tensorflow_quantization.text.warn import warn_user
from tensorflow_quantization.wrappers import (
    BaseQuantizeWrapper,
    activation_quantizers,
    activation_quantizers_in,
    weight_quantizers_in,
)
from tensorflow_quantization.wrappers.products import summed_inputs

#: Suffixes of files that Keras and this package write, and what writes them.
_WRITERS = {
    ".onnx": "export_onnx",
    ".tflite": "export_litert",
    ".keras": "model.save",
    ".h5": "model.save",
    ".hdf5": "model.save",
}


def check_path(path: str | os.PathLike, suffix: str = ".onnx") -> Path:
    """`path` as a `Path`.

    Args:
        path: the file to write.
        suffix: the suffix of the files that are written; default ".onnx".

    Raises:
        TypeError: `path` is no path.
        ExportError: `path` does not end in `suffix`.
        IsADirectoryError, FileNotFoundError, PermissionError: no file can be written there.
    """
    if not is_path(path):
        writer = _WRITERS[suffix]
        hint = f" Pass the model first: {writer}(model, path)." if isinstance(path, keras.Model) else ""
        raise TypeError(must_be_path("path", path, hint))
    path = Path(path)
    check_writable(path, f"model{suffix}")
    if path.suffix != suffix:
        known, other = path.suffix.lower() in _WRITERS, _WRITERS.get(path.suffix)
        right = path.with_suffix(suffix) if known else path.with_name(path.name + suffix)
        raise ExportError(
            f"{path} does not end in {suffix}"
            + (f", and {other} writes {path.suffix} files" if other else "")
            + f"; {_WRITERS[suffix]} writes {suffix} files: pass {right}."
        )
    return path


def check_input_layout(input_layout: str) -> None:
    """Raises: ExportError: the layout is unknown."""
    if input_layout not in INPUT_LAYOUTS:
        raise ExportError(must_be_one_of("input_layout", INPUT_LAYOUTS, input_layout))


def check_precision(precision: str) -> None:
    """Raises: ExportError: the precision is unknown."""
    if precision not in TOLERANCES:
        raise ExportError(must_be_one_of("precision", TOLERANCES, precision))


def check_verify_runtime(runtime: str | None, verify_with: object) -> None:
    """Raises: ExportError: the runtime is unknown, or there is no input to verify with."""
    if runtime is None or runtime in BUILDERS:
        return
    if runtime not in RUNTIMES:
        raise ExportError(must_be_one_of("verify_runtime", (*RUNTIMES, *BUILDERS), runtime))
    if verify_with is None:
        raise ExportError(
            f"verify_runtime={runtime!r} verifies nothing without verify_with: pass input of the model, as "
            "model.predict takes it, or leave verify_runtime out."
        )


def check_opset(opset: int | None) -> None:
    """Raises: OpsetError: `opset` is not an integer from `MIN_OPSET` to the newest opset of the installed `onnx`."""
    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        return
    if isinstance(opset, bool) or not isinstance(opset, int) or not MIN_OPSET <= opset <= newest:
        raise OpsetError(
            f"opset must be an integer from {MIN_OPSET} to {newest} (the newest of the installed onnx "
            f"{onnx.__version__}), got {opset!r}. Leave it out for the oldest opset that the model can use."
        )


def check_target(target: str | None) -> None:
    """Raises: ExportError: the runtime is unknown, or does not read ONNX files."""
    if target == "litert":
        raise ExportError("LiteRT reads .tflite files: use export_litert(model, path).")
    if target is not None and target not in TARGETS:
        raise ExportError(must_be_one_of("target", TARGETS, target))


def targets_of(graph: LayerGraph) -> list[str | None]:
    """The targets that the wrappers and quantizers of a flat graph are for, in the order of their calls."""
    quantizing = (BaseQuantizeWrapper, ActivationQuantizer)
    return [call.operation.target for call in graph.calls if isinstance(call.operation, quantizing)]


def check_runtime_dtypes(graph: LayerGraph, runtime: str | None, verifier: str | None) -> None:
    """Check that a runtime computes in the dtypes of all quantizers of a flat graph, and that another one runs them.

    Args:
        graph: the flat graph.
        runtime: the runtime that the file is for; `None`, or the name of a custom target: any.
        verifier: `verify_runtime` of `export_onnx`.

    Raises:
        ExportError: a quantizer is in FP8, and the runtime has no FP8. The message names the layers.
    """
    floating = [
        call.path
        for call in graph.calls
        if any(quantizer.scheme.floating for quantizer in activation_quantizers_in(call.operation))
        or any(quantizer.scheme.floating for quantizer in weight_quantizers_in(call.operation))
    ]
    if not floating:
        return
    names = f"{', '.join(floating[:5])}{f' and {len(floating) - 5} more' if len(floating) > 5 else ''}"
    if runtime in TARGETS and TARGETS[runtime].float8 is None:
        raise ExportError(
            f"{len(floating)} layers are quantized to FP8, in which {runtime} does not compute: {names}. Export for "
            f"target='tensorrt', or quantize the float model to integers: quantize_model(model, target={runtime!r})."
        )
    if verifier in RUNTIMES and verifier != DEFAULT_RUNTIME:
        raise ExportError(
            f"{len(floating)} layers are quantized to FP8, which verify_runtime={verifier!r} does not run: {names}. "
            f"Leave verify_runtime out: {DEFAULT_RUNTIME} runs the file."
        )


def check_blocks(graph: LayerGraph, runtime: str | None) -> None:
    """Check that a runtime loads the weights in blocks of a flat graph.

    Args:
        graph: the flat graph.
        runtime: the runtime that the file is for; `None`, or the name of a custom target: any.

    Raises:
        ExportError: weights have a shorter last block, which the runtime does not load. The message names the layers.
    """
    rule = TARGETS[runtime].blocks if runtime in TARGETS else None
    if rule is None or rule.partial:
        return
    broken = [
        f"  {call.path}: {inputs} inputs in blocks of {wrapper.weight_scheme.block_size}"
        for call in graph.calls
        if isinstance(wrapper := call.operation, BaseQuantizeWrapper) and wrapper.weight_scheme.block_size
        for inputs in summed_inputs(wrapper.layer)
        if inputs % wrapper.weight_scheme.block_size
    ]
    if broken:
        raise ExportError(
            f"{runtime} loads whole blocks only, and these layers have a shorter last block:\n"
            + "\n".join(broken)
            + f"\nQuantize the float model with target={runtime!r}."
        )


def check_no_keras_quantization(graph: LayerGraph) -> None:
    """Raises: ExportError: Keras' own `quantize` changed a layer; the message names the layer."""
    for call in graph.calls:
        mode = mode_of_keras(call.operation)
        if mode is not None:
            raise ExportError(
                f"Layer {call.path!r} ({call.class_name}) is quantized by Keras' own model.quantize({mode!r}), so its "
                "weights changed after quantize_model. Export a model without that call."
            )


def check_exportable(graph: LayerGraph) -> None:
    """Raises: ExportError: no file can have the quantizers of a layer; the message names all such layers."""
    wrappers = {c.path: c.operation for c in graph.calls if isinstance(c.operation, BaseQuantizeWrapper)}
    bad = [f"  {path}: {wrapper.why_not_exported}" for path, wrapper in wrappers.items() if wrapper.why_not_exported]
    if bad:
        raise ExportError(
            "No file can have the quantizers of these layers:\n" + "\n".join(bad) + "\nUse the quantizers of this "
            "package, for weights and outputs only, or keep the layers in float."
        )


def check_finite(graph: LayerGraph) -> None:
    """Raises: ExportError: weights or ranges are NaN or infinite; the message names all of them."""
    bad, seen = [], set()
    for call in graph.calls:
        for variable in getattr(call.operation, "weights", []):
            if id(variable) in seen or not keras.backend.is_float_dtype(variable.dtype):
                continue
            seen.add(id(variable))
            values = to_numpy(variable, "float32")
            if not np.isfinite(values).all():
                count = int(values.size - np.isfinite(values).sum())
                bad.append(f"  {call.path} ({call.class_name}): {variable.path}, {count} of {values.size} values")
    if bad:
        raise ExportError(
            "Weights or ranges are NaN or infinite:\n" + "\n".join(bad) + "\nThe training has diverged: "
            "load earlier weights. If only ranges are affected, run calibrate() again."
        )


def warn_unseen(graph: LayerGraph) -> None:
    """Warn once, with the names of the layers whose activation quantizers never saw data."""
    unseen = [c.path for c in graph.calls if not all(q.seen for q in activation_quantizers(c.operation))]
    names = list(dict.fromkeys(unseen))
    if names:
        warn_user(
            f"{len(names)} quantized layers never saw data, so their ranges are the initial ranges: "
            f"{shortened(names)}. Run calibrate(model, data) or model.fit before the export."
        )
