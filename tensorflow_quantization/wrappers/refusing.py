"""Keras' own `quantize` on what is quantized here: refused, because it changes the weights."""

from __future__ import annotations

from typing import Any, NoReturn

import keras

from tensorflow_quantization.model.keras_internals import sublayers


class _Refusal:
    """Stands for the method `quantize` of a layer or model."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"{self.name!r} is quantized by quantize_model already, and Keras' own quantize would change the weights "
            "under its quantizers. Call it on the float model, or not at all: the exports write this model's integers."
        )


def refuse_keras_quantize(layer: keras.layers.Layer) -> None:
    """Makes Keras' own `quantize` raise a `ValueError` on a layer or model and on all layers in it.

    Keras' `Model.quantize` calls the method of one layer after the other. In a loaded model it is refused at the first
    layer in a wrapper.
    """
    for each in (layer, *sublayers(layer)):
        each.quantize = _Refusal(each.name)
