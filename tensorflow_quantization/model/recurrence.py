"""The cells of recurrent layers whose two products are known."""

from __future__ import annotations

from typing import Any

import keras

#: Each multiplies its input by `kernel`, and its state by `recurrent_kernel`.
_CELLS = (keras.layers.GRUCell, keras.layers.LSTMCell, keras.layers.SimpleRNNCell)


def cells_of(layer: Any) -> dict[str, keras.layers.Layer]:
    """Returns the cells of a recurrent layer, or of both directions of a Bidirectional layer, by path in the layer.

    The result is empty for other layers, and if a cell is of another class than GRUCell, LSTMCell or SimpleRNNCell.

    Examples:
        >>> list(cells_of(keras.layers.Bidirectional(keras.layers.LSTM(2))))
        ['forward_layer.cell', 'backward_layer.cell']
    """
    cells = dict(_all_cells(layer))
    return cells if all(type(cell) in _CELLS for cell in cells.values()) else {}


def _all_cells(layer: Any) -> list[tuple[str, Any]]:
    if isinstance(layer, keras.layers.Bidirectional):
        halves = ("forward_layer", "backward_layer")
        return [(f"{half}.{path}", cell) for half in halves for path, cell in _all_cells(getattr(layer, half))]
    if not isinstance(layer, keras.layers.RNN):
        return []
    cell = getattr(layer, "cell", None)  # ConvLSTM and layers of the user may have none
    if isinstance(cell, keras.layers.StackedRNNCells):
        return [(f"cell.cells.{i}", one) for i, one in enumerate(cell.cells)]
    return [("cell", cell)]
