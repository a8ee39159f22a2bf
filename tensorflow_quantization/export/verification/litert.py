"""Runs a written `.tflite` file in LiteRT, and compares it with the Keras model.

The integers of every quantizer are compared, layer by layer (`export.verification.keras_with_integers`). For this, the
model is converted once more with each quantized tensor as an additional output. The file must have the same outputs as
this second file. A file that computes partly in float is not compared with it: the converter may fuse other operators
when all quantized tensors are outputs.

A step is one unit of the integer scale. LiteRT computes in fixed point: it rounds biases to integers, and rounds ties
in another direction than Keras. So an integer may differ by one step. Code of the user may have an operator whose
output LiteRT first rounds to a scale of its own, such as tanh: half a step of this scale more is allowed there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tensorflow_quantization.export.errors import VerificationError
from tensorflow_quantization.export.litert.calls import quantizer_of
from tensorflow_quantization.export.litert.convert import convert
from tensorflow_quantization.export.litert.file import is_integer
from tensorflow_quantization.export.litert.function import make_function
from tensorflow_quantization.export.litert.own_code import is_own_code
from tensorflow_quantization.export.names import names_in_signature
from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.export.verification.keras_with_integers import advice, inputs_to_verify, run_with_integers
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantizers import ActivationQuantizer, numerics
from tensorflow_quantization.quantizers.scheme import WIDE_BITS
from tensorflow_quantization.text.warn import without_note

#: Largest distance of an integer from the value in Keras, in steps: one step, and a margin for float rounding.
ONE_QUANTUM = 1.01
#: The same of 16 bits: their kernels rescale by a factor of 16 bits, which is off by up to half a step of the greatest
#: integer.
ONE_WIDE_QUANTUM = 1.51
#: The longest of LiteRT's own steps: of tanh and of an L2 normalization. Those of sigmoid and softmax are half as long.
_OWN_STEP = 1 / 128

#: Of the inputs and outputs of a file without floats.
_INTEGERS = (np.int8, np.int16)

#: LiteRT writes this to stderr once in a process, whatever its options and the log levels are.
_DELEGATE_NOTE = "INFO: Created TensorFlow Lite XNNPACK delegate"


class Compared(NamedTuple):
    """How far a quantized tensor of a file is from Keras.

    Attributes:
        path: of the layer.
        distance: the largest one of an integer from the value in Keras, in steps. Rounding alone causes up to half a
            step.
        unequal: the share of integers that differ from the integers in Keras, from 0 to 1.
        allowed: the largest distance that is no fault of the file, in steps.
    """

    path: str
    distance: float
    unequal: float
    allowed: float


@dataclass
class Agreement:
    """How closely a file and Keras agree at each quantizer.

    Attributes:
        tensors: one entry for each quantized tensor.
    """

    tensors: list[Compared] = field(default_factory=list)

    @classmethod
    def of(cls, batches: Sequence[Agreement]) -> Agreement:
        """The agreement over all batches."""
        rows = zip(*(batch.tensors for batch in batches), strict=True)
        return cls(
            [
                row[0]._replace(
                    distance=max(one.distance for one in row), unequal=float(np.mean([one.unequal for one in row]))
                )
                for row in rows
            ]
        )

    @property
    def distance(self) -> float:
        """The largest distance of all tensors, in steps."""
        return max((one.distance for one in self.tensors), default=0.0)

    @property
    def unequal(self) -> float:
        """The mean share of integers that differ, from 0 to 1."""
        return float(np.mean([one.unequal for one in self.tensors])) if self.tensors else 0.0

    def __str__(self) -> str:
        return (
            f"{len(self.tensors)} quantized tensors: {1 - self.unequal:.3%} of integers equal, at most "
            f"{self.distance:.3g} steps from the values in Keras"
        )


def verify_litert(data: bytes, graph: LayerGraph, x: Any) -> Agreement:
    """Compare a file with the Keras model.

    Args:
        data: the bytes of the file.
        graph: the flat graph of the Keras model.
        x: input of the model, as `inputs_to_verify` takes it.

    Returns:
        How closely they agree.

    Raises:
        VerificationError: they disagree. The message names the tensor that differs most, and by how much.
        ExportError: `x` does not fit the inputs of the model.
        ImportError: `ai-edge-litert` is not installed.
    """
    batches = inputs_to_verify(graph, x)
    # A file with integer inputs and outputs rounds an input that it returns.
    returned = {name for name, y in zip(names_in_signature(graph), graph.outputs, strict=True) if y.producer is None}
    function = make_function(graph, expose=True)
    exposed = convert(function)
    found: list[Agreement] = []
    for inputs in batches:
        try:
            results = run_file(exposed, graph, inputs)
            outputs = run_file(data, graph, inputs)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise VerificationError(f"LiteRT cannot run the file: {reason} No file was written.") from error
        for name, output in outputs.items():
            if is_integer(data) and name not in returned and not np.array_equal(output, results[name]):
                raise VerificationError(
                    f"Output {name!r} of the file changes when all quantized tensors are outputs. No file was written. "
                    + advice(graph, batches)
                )
        values = {(id(c), id(q)): results[f"quantized_{i}"] for i, (c, q) in enumerate(function.quantized)}
        found.append(Agreement())
        run_with_integers(graph, inputs, partial(_integers, values, found[-1]))
    agreement = Agreement.of(found)
    wrong = [one for one in agreement.tensors if not one.distance <= one.allowed]
    if wrong:
        worst = max(wrong, key=lambda one: one.distance)
        rest = f" {len(wrong) - 1} more tensors deviate." if len(wrong) > 1 else ""
        raise VerificationError(
            f"LiteRT and Keras disagree, most at {worst.path!r}: {worst.unequal:.2%} of its integers differ, by up to "
            f"{worst.distance:.3g} steps (allowed: {worst.allowed:.3g}).{rest} No file was written. "
            + advice(graph, batches)
        )
    return agreement


def require_installed() -> None:
    """Raises: ImportError: `ai-edge-litert` is not installed."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ImportError(
            "verify_with runs the file in LiteRT, which is not installed: pip install 'tensorflow-quantization[litert]'"
        )


def run_file(data: bytes, graph: LayerGraph, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a file by name, as floats.

    Args:
        data: the bytes of the file.
        graph: the graph of the Keras model.
        inputs: one array per input of the model.

    Raises:
        ImportError: `ai-edge-litert` is not installed.
    """
    require_installed()
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=data).get_signature_runner()
    details = runner.get_input_details()
    feeds = {}
    for tensor, array in zip(graph.inputs, inputs, strict=True):
        name = plain_name(tensor.name)
        feeds[name] = _quantized(array, details[name])
    with without_note(_DELEGATE_NOTE):
        results = runner(**feeds)
    return {name: _dequantized(results[name], detail) for name, detail in runner.get_output_details().items()}


def _quantized(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    if detail["dtype"] not in _INTEGERS:
        return array
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    integers = np.round(array / np.float32(scale)) + zero_point
    return np.clip(integers, limits.min, limits.max).astype(detail["dtype"])


def _dequantized(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    if array.dtype not in _INTEGERS:
        return array
    scale, zero_point = detail["quantization"]
    return numerics.dequantize(array.astype(np.float32), np.float32(scale), np.float32(zero_point))


def _integers(
    values: dict[tuple[int, int], np.ndarray],
    agreement: Agreement,
    call: Call,
    quantizer: ActivationQuantizer,
    exact: np.ndarray,
) -> np.ndarray:
    """The integers of the file at a quantizer. The result of the comparison is appended to `agreement`."""
    scale, zero_point = (p.astype(np.float32) for p in quantizer.parameters())
    found = np.round(values[id(call), id(quantizer)].reshape(exact.shape) / scale) + zero_point
    limits = np.iinfo(quantizer.scheme.dtype)
    wanted = np.clip(exact / scale + zero_point, limits.min, limits.max)
    distance = float(np.abs(found - wanted).max(initial=0.0))
    unequal = float(np.mean(found != np.round(wanted))) if exact.size else 0.0
    own = 0.5 * _OWN_STEP / float(np.min(scale)) * _own_codes(call)
    quantum = ONE_WIDE_QUANTUM if quantizer.scheme.bits == WIDE_BITS else ONE_QUANTUM
    agreement.tensors.append(Compared(call.path, distance, unequal, quantum + own))
    return found


def _own_codes(call: Call, known: dict[int, int] | None = None) -> int:
    """How many layers of the user's code compute the output of a call in a row, each with LiteRT's own rounding.

    Args:
        call: the call; calls before it count up to the next quantizers.
        known: the results so far, by the id of a call.
    """
    known = {} if known is None else known
    if id(call) not in known:
        before = [x.producer for x in call.inputs if x.producer is not None and quantizer_of(x) is None]
        known[id(call)] = is_own_code(call) + max((_own_codes(one, known) for one in before), default=0)
    return known[id(call)]
