"""Trains a quantized model with the float model as the teacher, and undoes it if it does not help."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from tensorflow_quantization import fine_tune
from tensorflow_quantization.accuracy.stages import Stages
from tensorflow_quantization_cli import results


def train(
    quantized: keras.Model, model: keras.Model, batches: keras.utils.PyDataset, steps: int, judges: list[Any]
) -> None:
    """Trains a quantized model in place, and prints what it gained.

    Args:
        quantized: the quantized model.
        model: the float model.
        batches: what it learns from, one for each step.
        steps: how many.
        judges: batches of samples. If their outputs are not nearer to the float model's, the training is undone.
    """
    stages = Stages(model, judges, verbose=1)
    stages.start(quantized, "before the training")
    before = quantized.get_weights()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The training moved the outputs")  # then it is undone
        fine_tune(quantized, batches, teacher=model, epochs=1, steps_per_epoch=steps, verbose=results.verbosity())
    stages.keep_gain(quantized, before, "trained")
