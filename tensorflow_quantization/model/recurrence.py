"""The cells of recurrent layers whose two products are known."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.keras_internals import is_convolutional

#: Each multiplies its input by `kernel`, and its state by `recurrent_kernel`.
_CELLS = (keras.layers.GRUCell, keras.layers.LSTMCell, keras.layers.SimpleRNNCell)


def cells_of(layer: Any) -> dict[str, keras.layers.Layer]:
    """Returns the cells of a recurrent layer, or of both directions of a Bidirectional layer, by path in the layer.

    The result is empty for other layers, and if a cell is of another class than GRUCell, LSTMCell, SimpleRNNCell or
    the cell of ConvLSTM.

    Examples:
        >>> list(cells_of(keras.layers.Bidirectional(keras.layers.LSTM(2))))
        ['forward_layer.cell', 'backward_layer.cell']
    """
    cells = dict(_all_cells(layer))
    return cells if all(type(cell) in _CELLS or is_convolutional(cell) for cell in cells.values()) else {}


def convolutional_step(cell: Any, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
    """Returns what a cell of ConvLSTM computes in inference, with two convolutions in place of Keras' eight.

    Keras splits both kernels by gate, so that a file would have parts of them.

    Args:
        cell: the cell.
        inputs: one step, (batch, ...) with channels as in the layer.
        states: the two states, (batch, ...) each.
        training: for Keras' signature; nothing is dropped in any case.
    """
    hidden, carried = states
    axis = -1 if cell.data_format == "channels_last" else 1
    gates = ops.conv(inputs, cell.kernel, cell.strides, cell.padding, cell.data_format, cell.dilation_rate)
    if cell.use_bias:
        gates += ops.reshape(cell.bias, [-1 if i == axis % (cell.rank + 2) else 1 for i in range(cell.rank + 2)])
    gates += ops.conv(hidden, cell.recurrent_kernel, 1, "same", cell.data_format)
    input_gate, forget, candidate, output = ops.split(gates, 4, axis=axis)
    carried = cell.recurrent_activation(forget) * carried + cell.recurrent_activation(input_gate) * cell.activation(
        candidate
    )
    hidden = cell.recurrent_activation(output) * cell.activation(carried)
    return hidden, [hidden, carried]


def _all_cells(layer: Any) -> list[tuple[str, Any]]:
    if isinstance(layer, keras.layers.Bidirectional):
        halves = ("forward_layer", "backward_layer")
        return [(f"{half}.{path}", cell) for half in halves for path, cell in _all_cells(getattr(layer, half))]
    if not isinstance(layer, keras.layers.RNN):
        return []
    cell = getattr(layer, "cell", None)  # layers of the user may have none
    if isinstance(cell, keras.layers.StackedRNNCells):
        return [(f"cell.cells.{i}", one) for i, one in enumerate(cell.cells)]
    return [("cell", cell)]
