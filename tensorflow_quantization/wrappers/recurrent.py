"""The wrappers of recurrent layers.

The layer runs as it is, with the kernels of its cells replaced by their fake-quantized values: a kernel is quantized
once in a call, not once in a step, and the fused kernels of a backend, such as cuDNN's, stay in use.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.recurrence import cells_of
from tensorflow_quantization.wrappers.weighted import WeightedBaseQuantizeWrapper


class RecurrentBaseQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """Base class of wrappers for recurrent layers: fake-quantizes the sequences and the kernels of the cells.

    `kernel` and `recurrent_kernel` of each cell have one scale for each column, so each unit of each gate has its own.
    The states stay float, also a given initial state.

    Examples:
        >>> wrapper_class = BaseQuantizeWrapper.CHILD_WRAPPERS["LSTMQuantizeWrapper"]
        >>> wrapper = wrapper_class(keras.layers.LSTM(2))
        >>> wrapper(np.ones((1, 5, 3), "float32")).shape == (1, 2)
        True
        >>> list(wrapper.weight_quantizers)
        ['cell.kernel', 'cell.recurrent_kernel']

    Args:
        layer: the layer to wrap, built or not.
        **kwargs: arguments of `BaseQuantizeWrapper`.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        names = ("kernel", "recurrent_kernel")
        super().__init__(layer, tuple(f"{path}.{name}" for path in cells_of(layer) for name in names), **kwargs)

    @classmethod
    def suits(cls, layer: keras.layers.Layer) -> bool:
        return super().suits(layer) and bool(cells_of(layer))

    def call(self, sequences, initial_state=None, mask=None, training=None):  # type: ignore[override]
        """Returns the outputs of the layer; the arguments are the same as in the layer's `call`."""
        kwargs = {"initial_state": initial_state, "mask": mask}
        return super().call(sequences, training, **{name: x for name, x in kwargs.items() if x is not None})

    def compute_output_spec(self, sequences, initial_state=None, mask=None, training=None):  # type: ignore[override]
        """Returns the layer's output spec: quantization changes neither shape nor dtype."""
        return self.layer.compute_output_spec(sequences, initial_state=initial_state)

    def _variables(self):
        # Keras does not list the states of a stateful layer among its variables.
        states = tree.flatten(getattr(self.layer, "states", None))
        return [*super()._variables(), *(state for state in states if isinstance(state, keras.Variable))]

    def reset_state(self) -> None:
        """Sets the states of a layer with `stateful=True` to zero."""
        self.layer.reset_state()

    reset_states = reset_state


class LSTMQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.LSTM`."""


class GRUQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.GRU`."""


class SimpleRNNQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.SimpleRNN`."""


class RNNQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.RNN` with an LSTMCell, GRUCell or SimpleRNNCell, or a stack of them."""


class BidirectionalQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.Bidirectional`: the cells of both directions."""


class ConvLSTM1DQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.ConvLSTM1D`."""


class ConvLSTM2DQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.ConvLSTM2D`."""


class ConvLSTM3DQuantizeWrapper(RecurrentBaseQuantizeWrapper):
    """`keras.layers.ConvLSTM3D`."""
