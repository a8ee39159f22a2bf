"""The cells of recurrent layers whose two products are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.keras_internals import is_convolutional

#: Each multiplies its input by `kernel`, and its state by `recurrent_kernel`.
_CELLS = (keras.layers.GRUCell, keras.layers.LSTMCell, keras.layers.SimpleRNNCell)
#: The layers that run them step by step, and no more.
_LAYERS = (keras.layers.GRU, keras.layers.LSTM, keras.layers.SimpleRNN, keras.layers.RNN)


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
    return _lstm_step(cell, ops.split(gates, 4, axis=axis), carried)


def is_projected_once(layer: Any) -> bool:
    """Returns whether a recurrent layer may project all steps at once: its own code and its cell's are Keras'."""
    return type(layer) in _LAYERS and type(layer.cell) in _CELLS


def projection(cell: Any, sequences: Any) -> Any:
    """Returns what a GRUCell, LSTMCell or SimpleRNNCell adds to the product of its state, for all steps at once.

    Args:
        cell: the cell.
        sequences: the input of the layer, (batch, steps, features), of a known number of steps.

    Returns:
        (batch, steps, columns of `cell.kernel`).
    """
    rows = ops.matmul(ops.reshape(sequences, (-1, sequences.shape[-1])), cell.kernel)
    if cell.use_bias:
        rows += cell.bias[0] if len(cell.bias.shape) == 2 else cell.bias  # GRU: the second row is of the state
    return ops.reshape(rows, (-1, sequences.shape[1], rows.shape[-1]))


def projected_step(cell: Any, projected: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
    """Returns what a GRUCell, LSTMCell or SimpleRNNCell computes in inference, from one step of `projection`.

    Args:
        cell: the cell.
        projected: one step, (batch, columns of `cell.kernel`).
        states: the states, (batch, units) each.
        training: for Keras' signature; nothing is dropped in any case.
    """
    if isinstance(cell, keras.layers.LSTMCell):
        hidden, carried = states
        gates = projected + ops.matmul(hidden, cell.recurrent_kernel)
        return _lstm_step(cell, ops.split(gates, 4, axis=-1), carried)
    hidden = states[0]
    if isinstance(cell, keras.layers.GRUCell):
        hidden = _gru_step(cell, projected, hidden)
    else:
        hidden = cell.activation(projected + ops.matmul(hidden, cell.recurrent_kernel))
    return hidden, [hidden]


def _lstm_step(cell: Any, gates: Sequence[Any], carried: Any) -> tuple[Any, list[Any]]:
    input_gate, forget, candidate, output = gates
    carried = cell.recurrent_activation(forget) * carried + cell.recurrent_activation(input_gate) * cell.activation(
        candidate
    )
    hidden = cell.recurrent_activation(output) * cell.activation(carried)
    return hidden, [hidden, carried]


def _gru_step(cell: Any, projected: Any, hidden: Any) -> Any:
    update, reset, candidate = ops.split(projected, 3, axis=-1)
    if cell.reset_after:
        products = ops.matmul(hidden, cell.recurrent_kernel)
        if cell.use_bias:
            products += cell.bias[1]
        of_update, of_reset, of_candidate = ops.split(products, 3, axis=-1)
    else:
        gates, last = cell.recurrent_kernel[:, : 2 * cell.units], cell.recurrent_kernel[:, 2 * cell.units :]
        of_update, of_reset = ops.split(ops.matmul(hidden, gates), 2, axis=-1)
    update, reset = cell.recurrent_activation(update + of_update), cell.recurrent_activation(reset + of_reset)
    of_candidate = reset * of_candidate if cell.reset_after else ops.matmul(reset * hidden, last)
    return update * hidden + (1 - update) * cell.activation(candidate + of_candidate)


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
