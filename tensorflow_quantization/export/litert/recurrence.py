"""Recurrent layers in a model for LiteRT, written step by step.

TensorFlow's converter rejects the loop in which Keras computes a recurrent layer: the loop collects its outputs in a
list of tensors of an unknown size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.constants import plus_zero
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_internals import is_convolutional, sublayers
from tensorflow_quantization.model.recurrence import (
    convolutional_step,
    is_projected_once,
    projected_step,
    projection,
)
from tensorflow_quantization.model.weights import merged_array
from tensorflow_quantization.wrappers.recurrent import RecurrentBaseQuantizeWrapper


class StoredKernel(NamedTuple):
    """A kernel of a recurrent cell as a file stores it: the real value is integer * scale of the column.

    Attributes:
        integers: int8, in the shape of the kernel.
        scales: float32, one for each column.
    """

    integers: np.ndarray
    scales: np.ndarray


def stored_kernels(graph: LayerGraph) -> list[StoredKernel]:
    """The quantized kernels of the recurrent layers of a graph."""
    found = []
    for call in graph.calls:
        if isinstance(call.operation, RecurrentBaseQuantizeWrapper):
            for name, quantizer in call.operation.weight_quantizers.items():
                kernel = merged_array(call.operation.layer, name)
                found.append(StoredKernel(quantizer.integers(kernel), quantizer.scales(kernel)))
    return found


def is_recurrent(call: Call) -> bool:
    """Whether a call computes a recurrent layer, alone or within a layer such as `TimeDistributed`."""
    return bool(_recurrent_layers(call))


def check_recurrence(graph: LayerGraph) -> None:
    """Raise: ExportError: a recurrent layer keeps its states between runs, or its number of steps is unknown."""
    for call in graph.calls:
        layers = _recurrent_layers(call)
        if any(layer.stateful for layer in layers):
            raise ExportError(
                f"Layer {call.path!r} has stateful=True, and a file stores no state between runs. Pass the state as an "
                "input (initial_state), and make it an output (return_state=True)."
            )
        if layers and None in call.inputs[0].shape[1:2]:
            raise ExportError(
                f"Layer {call.path!r} reads sequences with an unknown number of steps, and TensorFlow's converter "
                "rejects loops. Give the model an input with a known number of steps, here 100, before or after it "
                "is quantized: x = keras.Input((100, features)); model = keras.Model(x, model(x))."
            )


@contextmanager
def unrolled(graph: LayerGraph) -> Iterator[None]:
    """Within this context, the recurrent layers of a graph compute step by step, as the converter needs them."""
    looping = {id(layer): layer for call in graph.calls for layer in _recurrent_layers(call)}.values()
    with ExitStack() as stack:
        for layer in looping:
            stack.enter_context(_replaced(layer, "inner_loop", _inner_loop(layer)))
            stack.enter_context(_replaced(layer, "unroll", True))
            for cell in _cells_with_rounded_outputs(layer):
                stack.enter_context(_replaced(cell, "call", _in_floats(cell)))
        yield


@contextmanager
def _replaced(layer: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context, a layer has another value or method of this name."""
    is_own, before = name in vars(layer), getattr(layer, name, None)
    setattr(layer, name, value)
    try:
        yield
    finally:
        setattr(layer, name, before)
        if not is_own:
            delattr(layer, name)


def _inner_loop(layer: keras.layers.RNN) -> Callable[..., Any]:
    """All steps of a layer."""

    def inner_loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        if not is_projected_once(layer):
            return type(layer).inner_loop(layer, sequences, initial_state, mask, training)
        # LiteRT reads the kernel once then, and not once in a step.
        step: Callable[..., Any] = partial(projected_step, layer.cell)
        if layer.cell in _cells_with_rounded_outputs(layer):
            step = _unscaled(step)
        mask = keras.tree.flatten(mask)[0]
        with _replaced(layer.cell, "call", step):
            projected = projection(layer.cell, sequences)
            return keras.layers.RNN.inner_loop(layer, projected, initial_state, mask, training)

    if layer.zero_output_for_mask and layer.go_backwards and not layer.unroll:
        return _with_zeros(layer, inner_loop)
    return inner_loop


def _with_zeros(layer: keras.layers.RNN, steps: Callable[..., Any]) -> Callable[..., Any]:
    """The steps of a layer that runs backwards and has zeros where a mask is.

    Unrolled, Keras 3.15 puts the zeros where the mask of the sequence that is not turned has them. A layer that the
    user has built with `unroll=True` computes this in Keras, too, and is left alone.
    """

    def inner_loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        with _replaced(layer, "zero_output_for_mask", False):
            last, outputs, states = steps(sequences, initial_state, mask, training)
        if mask is not None:
            turned = keras.ops.flip(mask, axis=1)
            turned = keras.ops.reshape(turned, (-1, turned.shape[1], *[1] * (len(outputs.shape) - 2)))
            outputs = outputs * keras.ops.cast(turned, outputs.dtype)
            last = last * keras.ops.cast(turned[:, -1], last.dtype)
        return last, outputs, states

    return inner_loop


def _cells_with_rounded_outputs(layer: keras.layers.RNN) -> list[Any]:
    """The cells whose output may be a tanh or the like, which the converter rounds to LiteRT's own scale of it."""
    cell = getattr(layer, "cell", None)
    known = (keras.layers.GRUCell, keras.layers.LSTMCell)
    return [one for one in getattr(cell, "cells", [cell]) if one is not None and type(one) not in known]


def _in_floats(cell: Any) -> Callable[..., Any]:
    """The call of a cell with rounded outputs."""
    return _unscaled(partial(convolutional_step if is_convolutional(cell) else type(cell).call, cell))


def _unscaled(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step whose output and states the converter gives no scale."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return keras.tree.map_structure(lambda y: plus_zero(y, y), step(*args, **kwargs))

    return call


def _recurrent_layers(call: Call) -> list[Any]:
    layers = [call.operation, *sublayers(call.operation)] if call.is_layer else []
    return [layer for layer in layers if isinstance(layer, keras.layers.RNN)]
