"""Attention without projections in a model for LiteRT, which computes it in floats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import keras

from tensorflow_quantization.export.litert.constants import plus_zero
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import sublayers, with_changed_values


@contextmanager
def float_values(graph: LayerGraph) -> Iterator[None]:
    """Within this context, the values and the returned scores have no scale.

    Else the converter would multiply integers, and round the softmax to LiteRT's own scale of it, as Keras does not.
    """
    called = [layer for call in graph.calls if call.is_layer for layer in (call.operation, *sublayers(call.operation))]
    with ExitStack() as contexts:
        for layer in called:
            if isinstance(layer, keras.layers.Attention):
                contexts.enter_context(with_changed_values(layer, lambda x: plus_zero(x, x)))
        yield
