"""Runs a quantized Keras model in which each quantizer returns the integers of a written file.

If a value lies halfway between two integers, float rounding decides, and every later layer sees the difference. When
each layer starts from the integers of the file, the layers can be compared one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.inputs import input_batches
from tensorflow_quantization.model.interpreter import Interpreter, compute
from tensorflow_quantization.model.precision import HALVES, computing_in_float32, in_float32
from tensorflow_quantization.model.weights import float32_array, merged_array, substitutes, variable_of
from tensorflow_quantization.quantizers import ActivationQuantizer, numerics
from tensorflow_quantization.quantizers.observing import observing
from tensorflow_quantization.text.warn import converting
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, activation_quantizers, wrappers_in

#: From a call, one of its quantizers and the float32 values in Keras to the integers of the file at this quantizer.
Integers = Callable[[Call, ActivationQuantizer, np.ndarray], np.ndarray]


#: The number of batches that are compared of data that yields batches, which may be a whole training set, or endless.
MOST_BATCHES = 8


def inputs_to_verify(graph: LayerGraph, x: Any) -> list[list[np.ndarray]]:
    """The argument `verify_with` of an export as batches: lists with one array per input, in the model's order.

    Arrays are one batch, unless the model has a fixed batch size. Of data that yields batches, the first `MOST_BATCHES`
    are used, of a list of batches all. The result may be passed again.

    Raises:
        ExportError: the argument does not fit the inputs of the model, or has no batch.
    """
    try:
        batches = input_batches(graph, x, name="verify_with")
        whole = isinstance(x, list | tuple | dict) or hasattr(x, "shape")
        taken = list(batches if whole else itertools.islice(batches, MOST_BATCHES))
    except ValueError as error:
        raise ExportError(str(error)) from error
    if not taken:
        raise ExportError("verify_with holds no data: it has no batch. Pass at least one sample.")
    return taken


def advice(
    graph: LayerGraph,
    batches: list[list[np.ndarray]],
    otherwise: str = "Please report this with the model's configuration.",
) -> str:
    """What the user can do if a file and Keras disagree: a sentence for the end of the message.

    Args:
        graph: the flat graph of the Keras model.
        batches: what was compared, as `inputs_to_verify` returns it.
        otherwise: what to do if these are finite.
    """
    for tensor, *arrays in zip(graph.inputs, *batches, strict=True):
        if not all(np.isfinite(array).all() for array in arrays if array.dtype.kind in "fV"):
            return f"verify_with has values for the input {tensor.name!r} that are NaN or infinite: pass finite data."
    return otherwise


def still_half(graph: LayerGraph) -> str | None:
    """The 16-bit dtype in which a model computes even in `computing_in_float32`; `None` if it does not.

    It casts to the dtype itself, or it has quantized weights that are variables of the dtype.
    """
    found: set[Any] = set()
    for call in graph.calls:
        if not call.is_layer:
            found.add(getattr(call.operation, "dtype", None))
        for wrapper in wrappers_in(call.operation):
            found.update(variable_of(wrapper.layer, name).dtype for name in wrapper.weight_quantizers)
    return max((dtype for dtype in HALVES if dtype in found), key=lambda dtype: HALVES[dtype], default=None)


def run_with_integers(graph: LayerGraph, inputs: Sequence[np.ndarray], integers: Integers) -> list[np.ndarray]:
    """The outputs of the Keras model when each quantizer returns the integers of a file, in the model's order.

    Args:
        graph: the flat graph of the model.
        inputs: one array per input.
        integers: called once for each quantizer of each call.
    """

    def with_integers(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        weights = [pair for wrapper in wrappers_in(call.operation) for pair in _weights_of_the_file(wrapper)]
        exchanging = {q: partial(_exchange, integers, call, q) for q in activation_quantizers(call.operation)}
        with keras.StatelessScope(weights), observing(exchanging):
            return compute(call, args, kwargs)

    with computing_in_float32([graph.model, *(call.operation for call in graph.calls)]):
        outputs = tree.flatten(Interpreter(graph).run(in_float32(inputs), with_integers))
    with converting():
        return [keras.ops.convert_to_numpy(y) for y in outputs]


def _exchange(integers: Integers, call: Call, quantizer: ActivationQuantizer, x: Any) -> Any:
    """The dequantized integers of the file at a quantizer, as a tensor like `x`."""
    exact = float32_array(x)
    found = integers(call, quantizer, exact).reshape(exact.shape).astype(np.float32)
    dequantized = numerics.dequantize(found, *(p.astype(np.float32) for p in quantizer.parameters()))
    return keras.ops.cast(keras.ops.convert_to_tensor(dequantized), x.dtype)


def _weights_of_the_file(wrapper: BaseQuantizeWrapper) -> list[tuple[Any, Any]]:
    """The quantized weights of a wrapper: pairs of the variable and its dequantized integers in the file.

    XLA divides by multiplying with the reciprocal, so a weight halfway between two integers may round to the other
    integer there. Dequantized weights round to the same integers on every backend.
    """
    values = []
    for name, quantizer in wrapper.weight_quantizers.items():
        weight = quantizer.dequantized(merged_array(wrapper.layer, name))
        for variable, value in substitutes(wrapper.layer, name, weight):
            values.append((variable, keras.ops.convert_to_tensor(value, dtype=variable.dtype)))
    return values
