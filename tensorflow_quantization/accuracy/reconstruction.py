"""`reconstruct`: trains the rounding of a block so that the block returns what it returns in float."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.accuracy.soft_rounding import SoftRounding, indecision
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, float32
from tensorflow_quantization.quantizers.observing import Observer, observing
from tensorflow_quantization.text.warn import muted

#: Samples in a step.
_BATCH = 32
#: Values move by about the learning rate in a step of Adam: so far in all steps together.
_WAY = 20.0
#: The share of values that come from the float model, and are not quantized (QDrop, arXiv:2203.05740).
_DROPPED = 0.5
#: The share of the steps in which nothing needs to be decided, and the sharpness of `indecision` after it.
_FREE, _SHARPNESS = 0.2, (20.0, 2.0)
#: How much indecision counts at first, beside an error as at the start, and how much more at the end, when all weights
#: should be decided: those that are not change the outputs once they are rounded.
_INDECISION, _RISE = 0.1, 1000.0


def reconstruct(
    block: LayerGraph,
    quantizers: Sequence[ActivationQuantizer],
    roundings: Sequence[SoftRounding],
    samples: Samples,
    steps: int,
    seed: int,
) -> None:
    """Trains roundings so that a block returns what it returns in float, and assigns them.

    The loss is the squared error of the outputs, divided by the error at the start, and the indecision (AdaRound,
    arXiv:2004.10568, by block as in arXiv:2102.05426). At random, one half of the activations is not quantized, and one
    half of the inputs comes from the float model (QDrop, arXiv:2203.05740).

    Args:
        block: the graph of a part of a quantized model.
        quantizers: the activation quantizers in it.
        roundings: of kernels in it.
        samples: what the block reads and should return.
        steps: of training.
        seed: of the order of the samples, and of what is not quantized.
    """
    model = _Reconstruction(block, roundings, samples.noise, steps, seed)
    dropping = {quantizer: model.dropping(quantizer) for quantizer in quantizers}
    soft = {rounding.kernel.quantizer: model.soft(index) for index, rounding in enumerate(roundings)}
    with observing({**dropping, **soft}), muted("tensorflow", logging.ERROR):  # it notes that models are compiled often
        model.fit(_Batches(samples, steps, seed), shuffle=False, verbose=0)  # in the order of the seed
    for rounding, value in zip(roundings, model.values, strict=True):
        rounding.assign(float32_array(value))


@dataclass
class Samples:
    """What a block reads and should return, for all samples: float arrays, one for each tensor.

    Attributes:
        inputs: what the block reads; everything before it is quantized.
        float_inputs: what it reads in the float model.
        expected: what it returns in the float model.
        noise: the mean square of (output - expected), for each output, at the start.
    """

    inputs: list[np.ndarray]
    float_inputs: list[np.ndarray]
    expected: list[np.ndarray]
    noise: list[float]


class _Reconstruction(keras.Model):
    """Computes the losses of a block; trains one value for each weight."""

    def __init__(
        self, block: LayerGraph, roundings: Sequence[SoftRounding], noise: list[float], steps: int, seed: int
    ) -> None:
        super().__init__(name="reconstruction", dtype="float32")  # whatever the global policy is
        self._block = Interpreter(block)
        self._roundings = roundings
        self._noise = noise
        self._count = steps
        self._seeds = keras.random.SeedGenerator(seed)
        self.values = [self.add_weight(r.start.shape, lambda shape, dtype, r=r: r.start) for r in roundings]
        self._done = self.add_weight((), "zeros", trainable=False)
        self.built = True
        jit = keras.backend.backend() == "jax"  # for a few hundred steps, XLA compiles longer than it saves on a CPU
        self.compile(keras.optimizers.Adam(_WAY / steps), jit_compile=jit)

    def call(self, arrays, training=None):
        inputs = [self._mixed(*pair) for pair in zip(arrays["inputs"], arrays["float_inputs"], strict=True)]
        outputs = self._block.run(inputs)
        losses = [
            ops.mean(ops.square(float32(got) - expected)) / noise
            for got, expected, noise in zip(outputs, arrays["expected"], self._noise, strict=True)
        ]
        done = self._done / self._count
        self._done.assign_add(1.0)
        decided = ops.clip((done - _FREE) / (1.0 - _FREE), 0.0, 1.0)
        most, least = _SHARPNESS
        sharpness = least + (most - least) * 0.5 * (1.0 + ops.cos(math.pi * decided))
        sizes = [math.prod(value.shape) for value in self.values]
        undecided = sum(n * indecision(v, sharpness) for v, n in zip(self.values, sizes, strict=True)) / sum(sizes)
        urgency = ops.where(done > _FREE, _INDECISION * ops.power(_RISE, decided), 0.0)
        self.add_loss(sum(losses) / len(losses) + urgency * undecided)
        return sum(losses)

    def soft(self, index: int) -> Observer:
        """Returns the observer that stands in for the quantizer of a kernel."""
        return lambda weight: ops.cast(self._roundings[index].weight(self.values[index]), weight.dtype)

    def dropping(self, quantizer: ActivationQuantizer) -> Observer:
        """Returns the observer that quantizes one half of the values only."""
        parameters = [np.float32(parameter) for parameter in quantizer.parameters()]

        def observe(x):
            scale, zero_point = map(ops.convert_to_tensor, parameters)
            return self._mixed(ops.cast(fake_quantize(float32(x), scale, zero_point, quantizer.scheme), x.dtype), x)

        return observe

    def _mixed(self, quantized: Any, exact: Any) -> Any:
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(quantized.dtype)):
            return quantized
        return ops.where(keras.random.uniform(ops.shape(exact), seed=self._seeds) < _DROPPED, exact, quantized)


class _Batches(keras.utils.PyDataset):
    """Random batches of the samples."""

    def __init__(self, samples: Samples, steps: int, seed: int) -> None:
        super().__init__()
        names = ("inputs", "float_inputs", "expected")
        self._arrays = {name: getattr(samples, name) for name in names}
        random = np.random.default_rng(seed)
        count = len(samples.expected[0])
        self._order = [random.permutation(count)[: min(_BATCH, count)] for _ in range(steps)]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> tuple[dict[str, tuple[np.ndarray, ...]]]:
        chosen = self._order[index]
        return ({name: tuple(array[chosen] for array in arrays) for name, arrays in self._arrays.items()},)
