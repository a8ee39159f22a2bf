"""`Stages`: keeps what brings the outputs of a quantized model nearer to the float model's, and undoes the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.finite import check_finite_outputs
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter, input_tensors
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.noise.output_noise import with_float_outputs
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise

#: Samples that a stage is judged by, at most.
_JUDGED = 128


class Stages:
    """Judges each stage by the outputs of the float model: a stage that brings the outputs no nearer is undone.

    Args:
        model: the float model.
        batches: of inputs, at least one; the first 128 samples judge.
        verbose: 1 or 2 prints the signal-to-noise ratio after each stage; 0 nothing.

    Raises:
        ValueError: the outputs of the float model are NaN or infinite.
    """

    def __init__(self, model: keras.Model, batches: list[Any], verbose: int):
        self._batches = batches[: max(1, _JUDGED // len(tree.flatten(batches[0])[0]))]
        self._expected = list(self._outputs(model))
        graph = LayerGraph.trace(model)
        for outputs in self._expected:
            check_finite_outputs(graph, outputs)
        self._verbose = verbose
        self._best = 0.0

    def start(self, quantized: keras.Model, stage: str) -> None:
        """Takes the first stage, which the others start from."""
        self._best = self._decibels(quantized)
        self._tell(self._best, stage)

    def gains(self, quantized: keras.Model, stage: str) -> bool:
        """Returns whether a stage brought the outputs nearer to those of the float model, and tells it."""
        decibels = self._decibels(quantized)
        gains = decibels >= self._best
        self._tell(decibels, stage if gains else f"{stage}: undone, it is no gain")
        self._best = max(self._best, decibels)
        return gains

    def keep_gain(self, quantized: keras.Model, before: list[Any], stage: str) -> bool:
        """Returns whether a stage gains; if not, the model gets the weights back that it had `before`."""
        if self.gains(quantized, stage):
            return True
        quantized.set_weights(before)
        return False

    def _tell(self, decibels: float, stage: str) -> None:
        if self._verbose:
            print(f"{decibels:6.1f} dB  {stage}")

    def _decibels(self, quantized: keras.Model) -> float:
        ratio = SignalToNoise()
        for outputs, found in zip(self._expected, self._outputs(quantized), strict=True):
            for output, (expected, got) in enumerate(zip(outputs, found, strict=True)):
                ratio.update(expected, got, output)
        return ratio.decibels

    def _outputs(self, model: keras.Model) -> Iterator[list[Any]]:
        whole = LayerGraph.trace(model).flatten()
        graph = with_float_outputs(whole)
        for batch in self._batches:
            if graph is whole:
                outputs = model(batch, training=False)
            else:
                outputs = Interpreter(graph).run(input_tensors(graph, batch))
            yield [float32_array(y) for y in tree.flatten(outputs)]
