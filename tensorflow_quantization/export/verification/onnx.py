"""Runs a written ONNX file in a runtime, and compares it with the Keras model.

The outputs of a float model may differ by 1e-4 of the largest value of each output.

The outputs of a quantized model may differ by more: if a value lies halfway between two integers, float rounding
decides, and every later layer sees the difference. So a quantized model is compared layer by layer. The file runs with
the output of every QuantizeLinear as an additional output. ONNX Runtime runs without optimizations, so that the file
is checked and not the optimizer; OpenVINO cannot switch its optimizations off and uses its integer kernels. Quantizers
that are a hint to OpenVINO (`passes.openvino.bounded_sums`) are left out: with additional outputs, both runtimes would
round there. Then the Keras model runs, and at each quantizer

- the integers of the file are compared with value / scale + zero point in Keras. A step is one unit of the integer
  scale; of FP8, the distance to the next number. The distance may be half a step, for rounding, plus 1e-4 of the
  largest value of the tensor, and at most one step;
- the Keras model continues with the integers of the file, so that the next layer starts from the same numbers. Points
  of an image that the file does not compute, because nothing reads them, are not compared.

The outputs, computed in this way, may differ by 1e-4 of the largest value of each output.

The file computes in float32. So a Keras model with a policy of 16 bits computes in float32 for the comparison. If it
casts to 16 bits itself, more difference is allowed, see `HALF_ROUNDINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.errors import VerificationError
from tensorflow_quantization.export.onnx.lower import Lowered, QuantizedTensor
from tensorflow_quantization.export.onnx.metadata import FOLDED_PADS, HINT, OFFSET, READ_POINTS, TRANSPOSED_LATER
from tensorflow_quantization.export.onnx.values import flattened_permutation, stored_dtype
from tensorflow_quantization.export.verification.keras_with_integers import (
    advice,
    inputs_to_verify,
    run_with_integers,
    still_half,
)
from tensorflow_quantization.export.verification.onnx_runtimes import (
    DEFAULT_RUNTIME,
    RUNTIMES,
    is_installed,
    without_quantizers,
)
from tensorflow_quantization.export.verification.processor import saturates
from tensorflow_quantization.model.finite import ADVICE
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.precision import HALVES, computing_in_float32, in_float32
from tensorflow_quantization.quantizers import ActivationQuantizer, numerics
from tensorflow_quantization.text.warn import warn_user

#: Largest difference of a float tensor, relative to its largest absolute value.
TOLERANCE = 1e-4
#: The same for each precision. float16 has a significand of 11 bits, and sums lose some of them.
TOLERANCES = {"float32": TOLERANCE, "float16": 2e-2}

#: The allowed difference of a model that casts to 16 bits, in units of the roundoff u of this dtype. Each rounding errs
#: by up to u, and errors of both signs add up to about sqrt(n) * u over n roundings (N. Higham, Accuracy and Stability
#: of Numerical Algorithms, 2nd edition, section 2.8): 40 u for 1600 in series. For float16 it is the 2e-2 of
#: `TOLERANCES`.
HALF_ROUNDINGS = 40

_Points = tuple[slice, ...]
#: By the ids of a call and of one of its quantizers: the integers of the file, and the points of the Keras tensor that
#: the file computes.
IntegersInKeras = dict[tuple[int, int], tuple[np.ndarray, _Points]]


def verify_onnx(
    path: Path,
    graph: LayerGraph,
    lowered: Lowered,
    x: Any,
    tolerance: float = TOLERANCE,
    runtime: str = "onnxruntime",
) -> None:
    """Compare the file at `path` with the Keras model.

    Args:
        path: path of the file. Temporary files are written to its directory.
        graph: the flat graph of the Keras model.
        lowered: the result of `lower` from which the file was written.
        x: input as `inputs_to_verify` takes it.
        tolerance: the allowed difference, relative to the largest absolute value of a tensor. Default: 1e-4.
        runtime: the runtime that runs the file, a key of `RUNTIMES`. Default: "onnxruntime".

    Raises:
        VerificationError: they disagree. The message names the tensor that differs most, and by how much. Or the
            runtime cannot run the file.
        ExportError: `x` does not fit the inputs of the model.
        ImportError: the runtime is not installed.
    """
    batches = inputs_to_verify(graph, x)
    half = still_half(graph)
    if half is not None:
        tolerance = max(tolerance, HALF_ROUNDINGS * HALVES[half])
    title = RUNTIMES[runtime].title
    problems: list[tuple[float, str]] = []
    try:
        run = load_onnx(path, lowered, runtime)
        runs = [(inputs, run(inputs)) for inputs in batches]
    except ImportError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise VerificationError(f"{title} cannot run the file: {lines[-1].strip()} No file was written.") from error
    for inputs, results in runs:
        problems += _compare(graph, lowered, inputs, results, tolerance, 1.0 if half is None else np.inf)
    if problems:
        # A deviation that is NaN comes first.
        problems.sort(key=lambda p: np.inf if np.isnan(p[0]) else p[0], reverse=True)
        rest = f" {len(problems) - 1} more tensors deviate." if len(problems) > 1 else ""
        why = "" if half is None else f", because the model casts to {half}"
        raise VerificationError(
            f"{title} and Keras disagree, most in {problems[0][1]} (allowed: {tolerance:.3g}{why}).{rest} "
            f"No file was written. {_saturation(lowered, runtime) or advice(graph, batches)}"
        )


def verify_where_possible(
    path: Path, graph: LayerGraph, lowered: Lowered, x: Any, tolerance: float, runtime: str
) -> None:
    """Compare the file at `path` with the Keras model, in ONNX Runtime if `runtime` saturates on this processor.

    A warning says why ONNX Runtime is used. It takes the arguments of `verify_onnx` and raises the same errors; `x` is
    read twice, so it is the result of `inputs_to_verify`.
    """
    try:
        verify_onnx(path, graph, lowered, x, tolerance, runtime)
    except VerificationError:
        if not (_saturated(lowered, runtime) and is_installed(DEFAULT_RUNTIME)):
            raise
        verify_onnx(path, graph, lowered, x, tolerance, DEFAULT_RUNTIME)
        title = RUNTIMES[runtime].title
        warn_user(
            f"The file was verified in {RUNTIMES[DEFAULT_RUNTIME].title}: this processor has no VNNI, so {title} adds "
            f"products of 8-bit integers in 16 bits here, and saturates. For such processors, quantize with "
            f"weight_bits=7; to see what {title} computes, pass verify_runtime={runtime!r}."
        )


def _compare(
    graph: LayerGraph,
    lowered: Lowered,
    inputs: list[np.ndarray],
    results: list[np.ndarray],
    tolerance: float,
    most_steps: float,
) -> list[tuple[float, str]]:
    """The tensors that deviate for a batch: by how much, relative to the allowed deviation, and a text."""
    integers = integers_in_keras(lowered, results)
    problems: list[tuple[float, str]] = []
    if lowered.quantized:
        outputs = run_with_integers(graph, inputs, partial(_checked, integers, problems, tolerance, most_steps))
    else:
        outputs = _run_model(graph, inputs)
    for name, expected in zip(lowered.output_names, outputs, strict=True):
        if not np.isfinite(expected).all():
            raise VerificationError(
                f"Keras returns values that are NaN or infinite in output {name!r}, so no file can be compared. No "
                f"file was written. {advice(graph, [inputs], f'Check verify_with. {ADVICE}')}"
            )
    for name, actual, expected in zip(lowered.output_names, results, outputs, strict=False):
        deviation = _deviation(actual, expected)
        if not deviation <= tolerance:
            problems.append((deviation / tolerance, f"output {name!r} by {deviation:.3g} of its largest value"))
    return problems


def load_onnx(path: Path, lowered: Lowered, runtime: str) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """Loads a file so that the integers of all its quantizers are outputs, too.

    Args:
        path: path of the file. Temporary files are written to its directory.
        lowered: the result of `lower` from which the file was written.
        runtime: the runtime that runs the file, a key of `RUNTIMES`.

    Returns:
        A function from one array per input of the model to the outputs of the file, then the integers, in the order of
        `lowered.quantized`.

    Raises:
        ImportError: the runtime is not installed. Other errors are those of the runtime.
    """
    names = [q.integers.onnx.name or "" for q in lowered.quantized]
    once = list(dict.fromkeys(names))  # equal quantizers of a tensor are one in the file
    hints = [y.name or "" for n in lowered.builder.graph for y in n.outputs if y.meta.get(HINT)]
    with without_quantizers(path, hints) as exact:
        run = RUNTIMES[runtime].load(exact, once)

    def run_all(inputs: list[np.ndarray]) -> list[np.ndarray]:
        results = run(feeds(lowered, inputs))
        count = len(lowered.output_names)
        integers = dict(zip(once, results[count:], strict=True))
        return [*results[:count], *(integers[name] for name in names)]

    return run_all


def integers_in_keras(lowered: Lowered, results: list[np.ndarray]) -> IntegersInKeras:
    """Returns the integers among the results of a file, in the encoding, the shape and the order of Keras."""
    return {
        (id(q.call), id(q.quantizer)): (_in_keras_order(_in_scheme(array, q), q), _points(q))
        for q, array in zip(lowered.quantized, results[len(lowered.output_names) :], strict=True)
    }


def _saturated(lowered: Lowered, runtime: str) -> bool:
    """Whether a runtime saturates in this file on this processor."""
    # ONNX Runtime verifies without optimizations, so it uses no integer kernels and does not saturate.
    return bool(lowered.quantized) and runtime != "onnxruntime" and saturates(runtime)


def _saturation(lowered: Lowered, runtime: str) -> str:
    """What the user can do if the runtime saturates; empty if it does not."""
    if not _saturated(lowered, runtime):
        return ""
    return (
        f"This processor has no VNNI: {RUNTIMES[runtime].title} adds products of 8-bit integers in 16 bits here, "
        f"and saturates. Quantize with target={runtime!r} and weight_bits=7 for such processors, or verify on a "
        "processor with VNNI."
    )


def feeds(lowered: Lowered, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the inputs of a file by name, from one array per input of the model."""
    return {
        value.onnx.name or "": array.transpose(value.order).astype(stored_dtype(value.dtype))
        for value, array in zip(lowered.inputs, inputs, strict=True)
    }


def _in_scheme(array: np.ndarray, quantized: QuantizedTensor) -> np.ndarray:
    """The integers of the file in the encoding of the quantizer: the target may use unsigned integers instead."""
    scheme = quantized.quantizer.scheme
    if scheme.floating:  # ONNX Runtime returns the bytes
        return array.view(scheme.dtype).astype(np.float32)
    offset = quantized.integers.onnx.meta.get(OFFSET)
    if offset is None:
        return array
    return np.clip(array.astype(np.int32) - offset, scheme.qmin, scheme.qmax)


def _in_keras_order(array: np.ndarray, quantized: QuantizedTensor) -> np.ndarray:
    """A tensor of the file with Keras' shape and order, and with the padding that a pass moved into a later node."""
    value = quantized.integers
    if TRANSPOSED_LATER in value.onnx.meta:
        array = array.transpose(value.onnx.meta[TRANSPOSED_LATER])
    pads = value.onnx.meta.get(FOLDED_PADS)
    if pads is not None:
        _, zero_point = quantized.quantizer.parameters()
        array = np.pad(array, np.reshape(pads, (2, -1)).T, constant_values=zero_point)
    if array.ndim != value.rank:  # the file quantizes before a Reshape, Keras after it
        sizes = [-1 if d is None else d for d in value.stored_shape[1:]]
        # The Reshape may split the first axis, too: `TimeDistributed` joins the batch and the steps.
        array = array.reshape([len(array) if -1 in sizes else -1, *sizes])
    if value.flattened is not None:
        inverse = np.argsort(flattened_permutation(value.flattened))
        return array[:, inverse]
    return array.transpose(np.argsort(value.order))


def _points(quantized: QuantizedTensor) -> _Points:
    """The slices of the Keras tensor that the file computes."""
    value = quantized.integers
    points = [slice(None)] * value.rank
    for axis, stride in enumerate(value.onnx.meta.get(READ_POINTS, ()), start=2):
        points[value.order[axis]] = slice(None, None, stride)
    return tuple(points)


def _run_model(graph: LayerGraph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    structure = tree.pack_sequence_as(graph.input_structure, in_float32(inputs))
    with computing_in_float32([graph.model, *(call.operation for call in graph.calls)]):
        outputs = graph.model(structure, training=False)
    return [keras.ops.convert_to_numpy(y) for y in tree.flatten(outputs)]


def _checked(
    integers: IntegersInKeras,
    problems: list[tuple[float, str]],
    tolerance: float,
    most_steps: float,
    call: Call,
    quantizer: ActivationQuantizer,
    exact: np.ndarray,
) -> np.ndarray:
    """The integers of the file at a quantizer, and of Keras at points that the file lacks; appends to `problems`."""
    array, points = integers[id(call), id(quantizer)]
    found = array.reshape(exact[points].shape).astype(np.float32)
    problem = _compare_integers(found, exact[points], quantizer, tolerance, most_steps)
    if problem is not None:
        problems.append((problem[0], f"{quantizer.name} of {call.path!r}, {problem[1]}"))
    whole = numerics.quantize(exact, *quantizer.parameters(), quantizer.scheme, np)
    whole[points] = found
    return whole


def _compare_integers(
    found: np.ndarray, exact: np.ndarray, quantizer: ActivationQuantizer, tolerance: float, most_steps: float
) -> tuple[float, str] | None:
    """The distance of integers from the values in Keras, relative to the allowed distance, and a text; else `None`."""
    scale, zero_point = (float(p) for p in quantizer.parameters())
    scheme = quantizer.scheme
    wanted = np.clip(exact / scale + zero_point, scheme.qmin, scheme.qmax)
    step = numerics.spacing(np.maximum(np.abs(found), np.abs(wanted)), scheme, np)
    distance = np.abs(found - wanted) / step
    allowed = np.minimum(most_steps, 0.5 + tolerance * float(np.abs(exact).max(initial=0.0)) / scale / step)
    wrong = int((~(distance <= allowed)).sum())
    if not wrong:
        return None
    excess = (distance / allowed).max()  # NaN if a distance is
    worst = float(distance.max())
    return float(excess), f"{wrong} of {found.size} integers, by up to {worst:.3g} steps"


def _deviation(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    if not expected.size:
        return 0.0
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
