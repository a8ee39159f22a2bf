"""`post_training_quantize`: a float model in, a quantized model out, as accurate as it gets without training."""

from __future__ import annotations

import itertools
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.accuracy.bias_correction import BiasCorrection
from tensorflow_quantization.accuracy.equalization import equalize
from tensorflow_quantization.accuracy.layer_by_layer import layer_by_layer
from tensorflow_quantization.accuracy.rounding import WeightRounding
from tensorflow_quantization.accuracy.signal_to_noise import SignalToNoise
from tensorflow_quantization.accuracy.weight_ranges import clip_weights
from tensorflow_quantization.calibration import calibrate
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import input_batches
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantize import quantize_model
from tensorflow_quantization.text.arguments import suggests_arguments

#: Samples that the methods see, and those of them that the signal-to-noise is measured on.
_SAMPLES, _MEASURED = 256, 64


@suggests_arguments
def post_training_quantize(
    model: keras.Model,
    data: Any,
    *,
    target: str | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    method: str = "mse",
    verbose: int = 1,
    **kwargs: Any,
) -> keras.Model:
    """Quantizes a float model without training and without labels.

    `equalize`, `quantize_model`, `calibrate`, `clip_weights`, `round_weights` and `correct_biases`, in this order.
    """
    batches = _first(model, data, _SAMPLES)
    quantizing = dict(target=target, weight_bits=weight_bits, activation_bits=activation_bits, **kwargs)
    progress = _Progress(model, batches, verbose)
    equalized = equalize(model, batches, weight_bits=weight_bits or 8, activation_bits=activation_bits or 8)
    quantized = quantize_model(equalized, **quantizing)
    calibrate(quantized, batches, method=method, verbose=0)
    progress.report("equalized, calibrated", quantized)
    clip_weights(quantized)
    progress.report("weights clipped", quantized)
    layer_by_layer(quantized, batches, [WeightRounding(), BiasCorrection()], equalized)
    progress.report("weights rounded, biases corrected", quantized)
    return quantized


class _Progress:
    """Tells what each stage gained."""

    def __init__(self, model: keras.Model, batches: list[Any], verbose: int):
        self.verbose = verbose
        self.batches = list(itertools.takewhile(lambda _: True, batches[-2:]))
        self.expected = [self._outputs(model, x) for x in self.batches] if verbose else []

    def report(self, stage: str, quantized: keras.Model) -> None:
        if not self.verbose:
            return
        ratio = SignalToNoise()
        for expected, x in zip(self.expected, self.batches, strict=True):
            for e, y in zip(expected, self._outputs(quantized, x), strict=True):
                ratio.update(e, y)
        print(f"{ratio.decibels:6.1f} dB  {stage}")

    @staticmethod
    def _outputs(model, x):
        return [float32_array(y) for y in tree.flatten(model(x, training=False))]


def _first(model: keras.Model, data: Any, samples: int) -> list[Any]:
    """Returns the first samples as batches in the structure of the model's inputs."""
    graph = LayerGraph.trace(model)
    found, count = [], 0
    for arrays in input_batches(graph, data, 32, "data"):
        found.append(tree.pack_sequence_as(graph.input_structure, arrays))
        count += len(arrays[0])
        if count >= samples:
            break
    return found
