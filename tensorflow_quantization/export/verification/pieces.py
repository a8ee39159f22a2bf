"""Runs a quantized Keras model layer by layer, with the integers of a written file in the place of its own.

Where a value lies on the edge between two integers, float rounding decides, and every later layer sees the difference.
With each piece starting from the numbers of the file, the pieces can be compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.onnx.emission import to_numpy
from tensorflow_quantization.model.graph import Call, LayerGraph, substitute
from tensorflow_quantization.quantizers import ActivationQuantizer, numerics
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, activation_quantizers, wrappers_in

#: Gets a call, one of its quantizers and Keras' values (float32); returns the integers of the file there, as numbers.
Integers = Callable[[Call, ActivationQuantizer, np.ndarray], np.ndarray]


def model_inputs(graph: LayerGraph, x: Any) -> list[np.ndarray]:
    """`x`, as `predict` takes it, as one array an input, in the model's order.

    Raises:
        ExportError: it does not fit the model's inputs.
    """
    if isinstance(x, dict):
        if isinstance(graph.input_structure, dict):
            x = {key: x.get(key) for key in graph.input_structure}
        else:
            x = [x.get(tensor.name) for tensor in graph.inputs]
    arrays = [None if a is None else np.asarray(a) for a in tree.flatten(x)]
    shapes = [None if a is None else a.shape for a in arrays]
    if len(arrays) != len(graph.inputs) or any(
        shape is None or len(shape) != len(t.shape) for shape, t in zip(shapes, graph.inputs, strict=False)
    ):
        wanted = ", ".join(f"{t.name} {t.shape}" for t in graph.inputs)
        raise ExportError(f"verify_with must hold one array for each input ({wanted}), got shapes {shapes}.")
    return [a.astype(t.dtype) for a, t in zip(arrays, graph.inputs, strict=True) if a is not None]


def run_pieces(graph: LayerGraph, inputs: list[np.ndarray], integers: Integers) -> list[np.ndarray]:
    """Keras' outputs, each quantizer replaced by what `integers` says.

    Args:
        graph: flat.
        inputs: see `model_inputs`.
        integers: called once for each quantizer in each call.
    """
    values = {id(t): keras.ops.convert_to_tensor(a) for t, a in zip(graph.inputs, inputs, strict=True)}

    for call in graph.calls:
        args = substitute(call.args, lambda t: values[id(t)])
        kwargs = substitute(call.kwargs, lambda t: values[id(t)])
        if "training" in kwargs:
            kwargs["training"] = False

        def exchange(quantizer: ActivationQuantizer, x: Any, call: Call = call) -> Any:
            exact = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
            found = integers(call, quantizer, exact).reshape(exact.shape).astype(np.float32)
            dequantized = numerics.dequantize(found, *(p.astype(np.float32) for p in quantizer.parameters()))
            return keras.ops.cast(keras.ops.convert_to_tensor(dequantized), x.dtype)

        weights = keras.StatelessScope([v for w in wrappers_in(call.operation) for v in _weights_of_the_file(w)])
        with weights, _standing_in(activation_quantizers(call.operation), exchange):
            result = call.operation(*args, **kwargs)
        values.update((id(t), y) for t, y in zip(call.outputs, tree.flatten(result), strict=True))
    return [keras.ops.convert_to_numpy(values[id(t)]) for t in graph.outputs]


def _weights_of_the_file(wrapper: BaseQuantizeWrapper) -> list[tuple[Any, Any]]:
    """Quantized weights of a wrapper, each with the value that its integers in the file stand for.

    A backend may divide by multiplying with the reciprocal (XLA does), and then find the other integer for a weight on
    the edge between two. Of values that lie on integers all find the same.
    """
    values = []
    for name, quantizer in wrapper.weight_quantizers.items():
        variable = getattr(wrapper.layer, name)
        weight = quantizer.dequantized(to_numpy(variable, "float32"))
        values.append((variable, keras.ops.convert_to_tensor(weight, dtype=variable.dtype)))
    return values


@contextlib.contextmanager
def _standing_in(
    quantizers: list[ActivationQuantizer], exchange: Callable[[ActivationQuantizer, Any], Any]
) -> Iterator[None]:
    """Lets `exchange` stand in for each of Keras' quantizers."""
    before = [q.observer for q in quantizers]
    try:
        for quantizer in quantizers:
            quantizer.observer = partial(exchange, quantizer)
        yield
    finally:
        for quantizer, observer in zip(quantizers, before, strict=True):
            quantizer.observer = observer
