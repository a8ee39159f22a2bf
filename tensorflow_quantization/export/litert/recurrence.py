"""Recurrent layers in a model for LiteRT, written step by step.

TensorFlow's converter rejects the loop in which Keras computes a recurrent layer: the loop collects its outputs in a
list of tensors of an unknown size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.constants import plus_zero
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_internals import sublayers


def is_recurrent(call: Call) -> bool:
    """Whether a call computes a recurrent layer, alone or within a layer such as `TimeDistributed`."""
    return bool(_sublayers(call, keras.layers.RNN))


def check_recurrence(graph: LayerGraph) -> None:
    """Raise: ExportError: a recurrent layer keeps its states between runs, or its number of steps is unknown."""
    for call in graph.calls:
        if not is_recurrent(call):
            continue
        if any(layer.stateful for layer in _sublayers(call, keras.layers.RNN)):
            raise ExportError(
                f"Layer {call.path!r} has stateful=True, and a file stores no state between runs. Pass the state as an "
                "input (initial_state), and make it an output (return_state=True)."
            )
        if None in call.inputs[0].shape[1:2]:
            raise ExportError(
                f"Layer {call.path!r} reads sequences with an unknown number of steps, and TensorFlow's converter "
                "rejects loops. Give the model an input with a known number of steps, here 100, before or after it "
                "is quantized: x = keras.Input((100, features)); model = keras.Model(x, model(x))."
            )


@contextmanager
def unrolled(graph: LayerGraph) -> Iterator[None]:
    """Within this context, the recurrent layers of a graph compute step by step, as the converter needs them."""
    looping, cells = (
        {id(layer): layer for call in graph.calls for layer in _sublayers(call, kind)}.values()
        for kind in (keras.layers.RNN, keras.layers.SimpleRNNCell)
    )
    before = [layer.unroll for layer in looping], [cell.activation for cell in cells]
    for layer in looping:
        layer.unroll = True
    for cell in cells:
        cell.activation = _in_floats(cell.activation)
    try:
        yield
    finally:
        for layer, unroll in zip(looping, before[0], strict=True):
            layer.unroll = unroll
        for cell, activation in zip(cells, before[1], strict=True):
            cell.activation = activation


def _in_floats(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An activation that the converter does not round to LiteRT's own scale of it, as it rounds a tanh."""

    def computed(x: Any) -> Any:
        y = activation(x)
        return plus_zero(y, y)

    return computed


def _sublayers(call: Call, kind: type) -> list[Any]:
    layers = [call.operation, *sublayers(call.operation)] if call.is_layer else []
    return [layer for layer in layers if isinstance(layer, kind)]
