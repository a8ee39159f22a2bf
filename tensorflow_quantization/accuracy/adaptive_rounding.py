"""`adapt_rounding`: trains the rounding of the kernels, block by block, without labels."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.accuracy.bias_correction import BiasCorrection
from tensorflow_quantization.accuracy.blocks import Block, blocks_of
from tensorflow_quantization.accuracy.kernels import Kernel, check_quantized, kernels_of
from tensorflow_quantization.accuracy.layer_by_layer import (
    Partners,
    Reference,
    Step,
    is_improvable,
    joined,
    unchanged_on_error,
)
from tensorflow_quantization.accuracy.reconstruction import Samples, reconstruct
from tensorflow_quantization.accuracy.rounding import WeightRounding
from tensorflow_quantization.accuracy.soft_rounding import SoftRounding
from tensorflow_quantization.model.activations import own_activation
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.inputs import BATCH_SIZE, first_batches, input_batches
from tensorflow_quantization.model.interpreter import Arguments, Interpreter, Run, input_tensors
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.text.arguments import check_count, suggests_arguments
from tensorflow_quantization.text.warn import converting
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.queries import inner_layer

#: Of each block, at most and at least. On a trained network, 400 gained twice as many decibels as 100.
_MOST_STEPS, _LEAST_STEPS = 400, 25
#: Values that a block computes for one sample in all steps together: so large images do not take hours.
_VALUES = 4e8
#: The share of the samples that judges whether the training of a block helped; it learns from the others.
_JUDGES = 0.25


@suggests_arguments
def adapt_rounding(model: keras.Model, quantized: keras.Model, data: Any, *, steps: int | None = None) -> keras.Model:
    """Trains the rounding of the kernels, block by block, so that each block returns what it returns in float.

    One block of a few layers after the other starts from `round_weights` and `correct_biases`. Then each weight learns
    whether it goes up or down (AdaRound, arXiv:2004.10568, by block as BRECQ, arXiv:2102.05426). The block reads what
    the blocks before it return, quantized, and one half of the values, at random, is not quantized (QDrop,
    arXiv:2203.05740). A quarter of the samples judges: a block that does not come nearer to the float model there
    keeps the rounding of the start.

    Examples:
        >>> quantized = calibrate(quantize_model(model, weight_bits=4), images, verbose=0)
        >>> quantized = adapt_rounding(model, quantized, images, steps=20)

    Args:
        model: the float model.
        quantized: the result of `quantize_model` of it, calibrated; changed in place.
        data: the calibration set as `calibrate` takes it, without labels. What one block reads and returns is in memory
            for all samples at once: a few hundred are enough.
        steps: int, of training for each block, with 32 samples each; default `None`: 400, or down to 25 for a block
            that computes more than 1 million values for a sample.

    Returns:
        `quantized`. A kernel holds the chosen integers times their scale, so saving, exporting and training start from
        them. Kernels of layers that are called several times keep the rounding that they have.

    Raises:
        TypeError: `model` or `quantized` is no `keras.Model`, or `steps` is no int.
        ValueError: `quantized` has no quantized kernels, is not calibrated, or was not made from `model`; `steps` is
            not above 0; the data does not fit its inputs, or a tensor is NaN or infinite. The model is as before then.
    """
    check_quantized(quantized, calibrated=True)
    check_count("steps", steps)
    batches = first_batches(LayerGraph.trace(quantized), data, sys.maxsize, "data")  # a generator is read once
    with unchanged_on_error(quantized):
        train_rounding(model, quantized, batches, steps=steps)
    return quantized


def train_rounding(
    model: keras.Model, quantized: keras.Model, data: Any, steps: int | None = None, verbose: int = 0
) -> tuple[int, int]:
    """Rounds kernels that are not rounded yet, see `adapt_rounding`; an interrupt leaves some of them rounded.

    Returns:
        The number of blocks that training brought nearer to the float model, and of those that have a kernel.
    """
    return _BlockByBlock(model, quantized, data).run(steps, verbose)


class _BlockByBlock:
    """A quantized model on all samples, block by block, beside the float model."""

    def __init__(self, model: keras.Model, quantized: keras.Model, data: Any):
        self._graph, float_graph = (LayerGraph.trace(m).flatten() for m in (quantized, model))
        self._partners = Partners.between(float_graph, self._graph)
        self._rounding = WeightRounding()
        self._blocks = blocks_of(self._graph, lambda call: len(self._kernels(call)), self._is_known)
        batches = [
            input_tensors(self._graph, x)
            for x in joined(self._graph, list(input_batches(self._graph, data, BATCH_SIZE, "data")))
        ]
        self._samples = [len(x[0]) for x in batches]
        self._runs = [Interpreter(self._graph).start(x) for x in batches]
        crossing = [t for block in self._blocks for t in [*block.inputs, *block.outputs] if self._is_known(t)]
        self._float = _FloatValues(float_graph, batches, [self._partner(t) for t in crossing])
        self._reference = Reference(float_graph, batches, self._graph, self._partners)

    def run(self, steps: int | None, verbose: int) -> tuple[int, int]:
        """Returns the number of blocks that came nearer to the float model, and of those that have a kernel."""
        bar = keras.utils.Progbar(len(self._blocks), verbose=verbose, unit_name="block")
        nearer = trained = 0
        for index, block in enumerate(self._blocks):
            kernels = [kernel for call in block.calls for kernel in self._kernels(call)]
            trained += bool(kernels)
            nearer += self._improve(block, kernels, steps or _steps(block), index)
            later = {id(tensor) for other in self._blocks[index + 1 :] for tensor in other.inputs}
            self._float.forget([self._partner(t) for t in block.inputs if id(t) not in later and self._is_known(t)])
            bar.add(1)
        return nearer, trained

    def _improve(self, block: Block, kernels: list[Kernel], steps: int, seed: int) -> bool:
        """Rounds a block and goes on to the next one; returns whether training brought it nearer, and keeps that."""
        compared = [tensor for tensor in block.outputs if self._is_known(tensor) and _is_float(tensor)]
        inputs = [_values(self._runs, tensor) for tensor in block.inputs]
        after = [run.fork() for run in self._runs]
        read = self._round(block)
        if not kernels:
            return False
        float_inputs = [self._float.value(self._partner(tensor)) for tensor in block.inputs]
        got = [_values(self._runs, tensor) for tensor in compared]
        wanted = [self._float.value(self._partner(tensor)) for tensor in compared]
        if not all(_by_sample([*inputs, *float_inputs, *got, *wanted], self._samples)):
            return False  # other axes are folded into the batch axis, or batches have different shapes
        start, expected = _joined(got), _joined(wanted)
        count = sum(self._samples)
        judges = np.random.default_rng(seed).permutation(count) < min(_JUDGES * count, count - 1)
        noise = [_noise(y, e, ~judges) for y, e in zip(start, expected, strict=True)]
        differ = [i for i, value in enumerate(noise) if value > 0.0]
        if not (differ and judges.any()):
            return False
        compared, noise = [compared[i] for i in differ], [noise[i] for i in differ]
        start, expected = [start[i] for i in differ], [expected[i] for i in differ]
        learned_from = [[x[~judges] for x in arrays] for arrays in (_joined(inputs), _joined(float_inputs), expected)]
        samples = Samples(learned_from[0], learned_from[1], learned_from[2], noise)
        roundings = [
            SoftRounding(kernel, self._rounding.exact.get((id(kernel.wrapper), kernel.name), kernel.value))
            for kernel in kernels
        ]
        variables = [v for call in block.calls if call.is_layer for v in call.operation.variables]
        values = [np.array(float32_array(variable)) for variable in variables]
        quantizers = [
            quantizer
            for call in block.calls
            if isinstance(call.operation, BaseQuantizeWrapper)
            for quantizer in call.operation.activation_quantizers
        ]
        part = dataclasses.replace(block, outputs=compared).part(self._graph)
        reconstruct(part, quantizers, roundings, samples, steps, seed)
        self._correct(after, block, read)
        trained = [np.concatenate(_values(after, tensor)) for tensor in compared]
        if _relative(trained, expected, judges) < _relative(start, expected, judges):
            self._runs = after
            return True
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return False

    def _round(self, block: Block) -> dict[int, list[Arguments]]:
        """Rounds each kernel of a block, for what the blocks before it return now, and advances to the next block.

        Returns:
            What its calls read in the float model, by the id of the call.
        """
        read: dict[int, list[Arguments]] = {}
        for call in block.calls:
            partner = self._partners.of(call)
            if is_improvable(self._graph, call):
                read[id(call)] = [] if partner is None else self._reference.arguments(partner)
                step = Step(call, [run.arguments() for run in self._runs], self._partners, read[id(call)])
                self._rounding.improve(step)
                BiasCorrection().improve(step)
            for run in self._runs:
                run.step()
        return read

    def _correct(self, runs: list[Run], block: Block, read: dict[int, list[Arguments]]) -> None:
        """Corrects the biases of a block, and advances to the next one."""
        for call in block.calls:
            if id(call) in read:
                arguments = [run.arguments() for run in runs]
                BiasCorrection().improve(Step(call, arguments, self._partners, read[id(call)]))
            for run in runs:
                run.step()

    def _kernels(self, call: Call) -> list[Kernel]:
        """Returns the kernels of a call whose rounding is chosen; none if the layer is called several times."""
        return list(kernels_of(call.operation)) if is_improvable(self._graph, call) else []

    def _is_known(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the float model, too."""
        if tensor.producer is None:
            return True
        partner = self._partners.of(tensor.producer)
        if partner is None or len(partner.outputs) != len(tensor.producer.outputs):
            return False
        return own_activation(inner_layer(tensor.producer.operation)) == own_activation(partner.operation)

    def _partner(self, tensor: Tensor) -> Tensor | int:
        """Returns the tensor of the float model, or the index of an input of both."""
        if tensor.producer is None:
            return next(i for i, x in enumerate(self._graph.inputs) if x is tensor)
        partner = self._partners.of(tensor.producer)
        assert partner is not None  # the tensor is known
        return partner.outputs[tensor.index]


def _steps(block: Block) -> int:
    values = sum(math.prod(n or 1 for n in tensor.shape) for call in block.calls for tensor in call.outputs)
    return int(min(_MOST_STEPS, max(_LEAST_STEPS, _VALUES / values)))


class _FloatValues:
    """Values of tensors of the float model, for all samples; computed on demand, in the order of the graph."""

    def __init__(self, graph: LayerGraph, batches: list[Any], tensors: Sequence[Tensor | int]):
        self._graph = graph
        self._runs = [Interpreter(graph).start(x) for x in batches]
        self._wanted = {id(self._tensor(t)) for t in tensors}
        self._values = {id(t): [_array(x[i]) for x in batches] for i, t in enumerate(graph.inputs)}

    def value(self, tensor: Tensor | int) -> list[np.ndarray]:
        """Returns the values, an array for each batch."""
        key = id(self._tensor(tensor))
        while key not in self._values:
            for run in self._runs:
                computed = run.step()
                for output, value in zip(computed.call.outputs, computed.outputs, strict=True):
                    if id(output) in self._wanted:
                        self._values.setdefault(id(output), []).append(_array(value))
        return self._values[key]

    def forget(self, tensors: Sequence[Tensor | int]) -> None:
        """Frees tensors that are not needed any more."""
        for tensor in tensors:
            self._values.pop(id(self._tensor(tensor)), None)

    def _tensor(self, tensor: Tensor | int) -> Tensor:
        return self._graph.inputs[tensor] if isinstance(tensor, int) else tensor


def _is_float(tensor: Tensor) -> bool:
    return keras.backend.is_float_dtype(tensor.dtype)


def _values(runs: list[Run], tensor: Tensor) -> list[np.ndarray]:
    return [_array(run.value(tensor)) for run in runs]


def _by_sample(tensors: list[list[np.ndarray]], samples: list[int]) -> Iterator[bool]:
    """Yields whether the first axis of a tensor is the batch axis, and the others are the same in all batches."""
    for batches in tensors:
        shapes = [batch.shape for batch in batches]
        yield all(shapes) and [shape[0] for shape in shapes] == samples and len({shape[1:] for shape in shapes}) == 1


def _joined(tensors: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(batches) for batches in tensors]


def _array(value: Any) -> np.ndarray:
    """Returns a tensor as an array, float32 or of integers."""
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        return float32_array(value)
    with converting():
        return keras.ops.convert_to_numpy(value)


def _noise(got: np.ndarray, expected: np.ndarray, chosen: np.ndarray) -> float:
    """Returns the mean square of the error of some samples."""
    return float(np.mean(np.square(got[chosen] - expected[chosen]), dtype=np.float64))


def _relative(got: list[np.ndarray], expected: list[np.ndarray], chosen: np.ndarray) -> float:
    """Returns noise over signal, the mean over the outputs."""
    pairs = zip(got, expected, strict=True)
    return float(np.mean([_noise(y, e, chosen) / (_noise(np.zeros_like(e), e, chosen) or 1.0) for y, e in pairs]))
