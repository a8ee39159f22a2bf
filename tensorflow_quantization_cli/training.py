"""Trains a quantized model with the float model as the teacher, and undoes it if it does not help."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from tensorflow_quantization import fine_tune
from tensorflow_quantization.accuracy.layer_by_layer import weights_of
from tensorflow_quantization.accuracy.signal_to_noise import SignalToNoise
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization_cli import results


def train(
    quantized: keras.Model, model: keras.Model, batches: keras.utils.PyDataset, steps: int, judges: Sequence[Any]
) -> None:
    """Trains a quantized model in place, and prints what it gained.

    Args:
        quantized: the quantized model.
        model: the float model.
        batches: what it learns from, one for each step.
        steps: how many.
        judges: batches of samples. If their outputs are not nearer to the float model's, the training is undone.
    """
    before, start = weights_of(quantized), _decibels(quantized, model, judges)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The training moved the outputs")  # then it is undone
        fine_tune(quantized, batches, teacher=model, epochs=1, steps_per_epoch=steps, verbose=results.verbosity())
    trained = _decibels(quantized, model, judges)
    print(f"{trained:6.1f} dB  trained, {start:.1f} dB before" + ("" if trained > start else ": undone, it is no gain"))
    if trained <= start:
        for weight, value in zip(quantized.weights, before, strict=True):
            weight.assign(value)


def _decibels(quantized: keras.Model, model: keras.Model, batches: Sequence[Any]) -> float:
    ratio = SignalToNoise()
    for batch in batches:
        outputs = (tree.flatten(m(batch, training=False)) for m in (model, quantized))
        for expected, got in zip(*outputs, strict=True):
            ratio.update(float32_array(expected), float32_array(got))
    return ratio.decibels
