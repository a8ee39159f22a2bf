"""Attention without projections in a model for LiteRT, which computes it in floats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from tensorflow_quantization.export.litert.constants import plus_zero
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import sublayers


@contextmanager
def float_values(graph: LayerGraph) -> Iterator[None]:
    """Within this context, the values and the returned scores have no scale.

    Else the converter would multiply integers, and round the softmax to LiteRT's own scale of it, as Keras does not.
    """
    called = [layer for call in graph.calls if call.is_layer for layer in (call.operation, *sublayers(call.operation))]
    attending = [layer for layer in called if isinstance(layer, keras.layers.Attention)]
    try:
        for layer in attending:
            layer._apply_scores = _apply_scores(layer)
        yield
    finally:
        for layer in attending:
            vars(layer).pop("_apply_scores", None)


def _apply_scores(layer: Any) -> Callable[..., Any]:
    def apply(scores: Any, value: Any, **kwargs: Any) -> Any:
        outputs, weights = type(layer)._apply_scores(layer, scores, plus_zero(value, value), **kwargs)
        return outputs, plus_zero(weights, weights)

    return apply
