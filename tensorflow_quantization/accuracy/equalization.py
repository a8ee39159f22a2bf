"""`equalize`: rescales and shifts channels so that one scale suits all, without changing the network's function."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.accuracy.channel_factors import (
    Rescaling,
    divide_source,
    inner_products,
    inner_tensor,
    multiply_reader,
    reading_kernels,
    rescale_inside,
    rescalings,
)
from tensorflow_quantization.accuracy.channel_shifts import Shift, possible_shift, shift_channels
from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.interpreter import Computed, Interpreter
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import QuantizationScheme, numerics
from tensorflow_quantization.wrappers.channels import is_depthwise

#: Rows that are kept of each batch to estimate the noise.
_ROWS_OF_A_BATCH = 128
#: How much of the differences between channels moves into the kernels: 1 makes the ranges of the activations equal, 0
#: the ranges of the kernels.
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)


def equalize(model: keras.Model, data: Any, *, weight_bits: int = 8, activation_bits: int = 8) -> keras.Model:
    """Returns a copy of a float model whose channels are rescaled so that one scale suits all of them.

    An activation has one scale. If one of its channels is a hundred times larger than the others, these get a
    hundredth of the integers. A factor of a channel can move through ReLU into the next kernel (cross-layer
    equalization, arXiv:1906.04721, section 4.1), and from a LayerNormalization into the matrices after it (SmoothQuant,
    arXiv:2211.10438). The factors are (spread of the channel) ** share / (range of its weights) ** (1 - share), where
    the spread is the range or the root of the mean square, and both are chosen for the least error of the next product.
    Half of the samples tell the range, the others the error: what calibration has not seen is clipped. A network's
    factors from before do not matter: networks that differ by them only become the same network.

    A constant can move, too, from one bias into the next: the middle of a channel's range, where no activation lies
    between (as after a LayerNormalization in RepQ-ViT, arXiv:2212.08254), and what a ReLU lets pass in all samples with
    a margin of the channel's whole range (bias absorption, arXiv:1906.04721, section 4.1).

    Between the two products of a separable convolution, channels are rescaled in the same way.

    Channels are not rescaled where that would change the function: before ReLU6, swish and any other activation that
    does not keep factors, at outputs, sums and concatenations, and for layers that are called several times. They are
    not shifted before zero padding and dropout, and where the next layer has neither a bias nor a BatchNormalization.

    Args:
        model: the float model; unchanged.
        data: the calibration set as `calibrate` takes it.
        weight_bits, activation_bits: int, the bits that the model will be quantized to; default 8.

    Returns:
        The copy, a `keras.Model` with the same layers and names.

    Raises:
        ValueError: the model cannot be traced, the data does not fit its inputs, or a tensor is NaN or infinite.

    Examples:
        >>> rescaled = equalize(model, images)
        >>> bool(np.allclose(rescaled.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5))
        True
    """
    original = LayerGraph.trace(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of methods that a copy loses: `quantize_model` warns of the same
        copy = rewrite(original, lambda call, layer: [layer])
    graph = LayerGraph.trace(copy).flatten()
    places, separable = list(rescalings(graph)), list(inner_products(graph))
    statistics = _channel_statistics(graph, places, separable, data)
    for place in places:
        seen = statistics[id(place.tensor)]
        kernels = [
            _normalized(_magnitudes(call, variable, axis, len(place.index)), seen.variance)
            for call in place.readers
            for variable, axis in reading_kernels(call, place.tensor)
        ]
        shifts = _shifts(place.index, seen, possible_shift(graph, place))
        candidates = [change for shift in shifts for change in _candidates(place.index, seen, kernels, shift)]
        best = _best(candidates, place.index, seen, kernels, weight_bits, activation_bits)
        factors = best.factors
        if best.shift.any():
            shift_channels(graph, place, best.shift)
        divide_source(place.source, factors)
        for call in place.readers:
            for kernel, axis in reading_kernels(call, place.tensor):
                multiply_reader(kernel, axis, getattr(call.operation, "groups", 1), factors[place.index])
    for call in separable:
        seen = statistics[id(call)]
        channels = np.arange(len(seen.least))
        kernels = [_normalized(_magnitudes(call, call.operation.pointwise_kernel, -2, len(channels)), seen.variance)]
        candidates = _candidates(channels, seen, kernels, np.zeros(len(channels)))
        rescale_inside(call, _best(candidates, channels, seen, kernels, weight_bits, activation_bits).factors)
    return copy


class _Statistics:
    """What is known of the channels of a tensor.

    Attributes:
        least, most: (channels,), of all samples.
        low, high: (channels,), of every other sample.
        rows: (rows, channels), values at random positions of the samples between these.
    """

    def __init__(self, axis: int):
        self.least: Any = np.inf
        self.most: Any = -np.inf
        self.low: Any = np.inf
        self.high: Any = -np.inf
        self._axis, self._sum, self._squares, self._count, self._samples = axis, np.zeros(()), np.zeros(()), 0, 0
        self._rows: list[np.ndarray] = []
        self._random = np.random.default_rng(0)

    def update(self, call: Call, tensor: Any) -> None:
        x = float32_array(tensor)
        if not np.isfinite(x).all():
            raise ValueError(f"{call.path!r} returned values that are NaN or infinite. Check the data.")
        x = np.moveaxis(x, self._axis, -1)
        seen, held_out = (x[start::2].reshape(-1, x.shape[-1]) for start in (self._samples % 2, 1 - self._samples % 2))
        self._samples += len(x)
        if len(seen):
            self.low = np.minimum(self.low, seen.min(axis=0))
            self.high = np.maximum(self.high, seen.max(axis=0))
        if len(held_out):
            self._rows.append(held_out[self._random.integers(len(held_out), size=_ROWS_OF_A_BATCH)])
        x = x.reshape(-1, x.shape[-1])
        self.least = np.minimum(self.least, x.min(axis=0))
        self.most = np.maximum(self.most, x.max(axis=0))
        self._sum = self._sum + x.sum(axis=0, dtype=np.float64)
        self._squares = self._squares + (x**2).sum(axis=0, dtype=np.float64)
        self._count += len(x)

    @property
    def mean(self) -> np.ndarray:
        return self._sum / self._count

    @property
    def variance(self) -> np.ndarray:
        return self.squares_about(self.mean)

    def squares_about(self, shift: np.ndarray) -> np.ndarray:
        """Returns the mean of (x - shift) ** 2."""
        return np.maximum(self._squares / self._count - 2 * shift * self.mean + shift**2, 0.0)

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(self._rows) if self._rows else np.stack([self.low, self.high])


def _channel_statistics(
    graph: LayerGraph, places: list[Rescaling], separable: list[Call], data: Any
) -> dict[int, _Statistics]:
    """Returns the statistics of the tensor of each place, and of that within each separable convolution, by id."""
    statistics = {id(place.tensor): _Statistics(place.axis) for place in places}
    for call in separable:
        first = call.operation.data_format == "channels_first"
        statistics[id(call)] = _Statistics(1 if first else len(call.outputs[0].shape) - 1)

    def watch(computed: Computed) -> None:
        call = computed.call
        for tensor, value in zip(call.outputs, computed.outputs, strict=True):
            if id(tensor) in statistics:
                statistics[id(tensor)].update(call, value)
        if id(call) in statistics:
            statistics[id(call)].update(call, inner_tensor(call, computed.inputs[0]))

    Interpreter(graph).run_batches(input_batches(graph, data, BATCH_SIZE, "data"), watch=watch)
    return statistics


@dataclass(frozen=True)
class _Change:
    """What the channels x of a source become: (x - shift) / factors.

    Attributes:
        factors, shift: float32 (channels of the source,).
    """

    factors: np.ndarray
    shift: np.ndarray


def _shifts(index: np.ndarray, seen: _Statistics, possible: Shift) -> list[np.ndarray]:
    """Returns the shifts of the channels of the source that come into question.

    Those are the middle of the range, which is best for the activations, and the mean, which is best for the kernels;
    behind a ReLU, which would clip what falls below the shift, the least value less a margin of the whole range.
    """
    none = np.zeros(index.max() + 1)
    if possible is Shift.NONE:
        return [none]
    if possible is Shift.DOWN_TO_LEAST:
        least, most = -_greatest(index, -seen.least), _greatest(index, seen.most)
        return [none, np.maximum(2 * least - most, 0.0)]
    middle = (_greatest(index, seen.high) - _greatest(index, -seen.low)) / 2
    mean = np.bincount(index, seen.mean) / np.bincount(index)
    return [middle, mean]


def _candidates(index: np.ndarray, seen: _Statistics, kernels: list[np.ndarray], shift: np.ndarray) -> list[_Change]:
    """Returns the changes of the channels of the source that come into question, all with the same shift.

    Args:
        index: for each channel that is read, the channel of the source.
        seen: the statistics of what is read.
        kernels: what multiplies it, see `_normalized`.
        shift: (channels of the source,).
    """
    channels = index.max() + 1
    read = shift[index]
    magnitude = np.maximum(np.abs(seen.most - read), np.abs(seen.least - read))
    range_ = _greatest(index, magnitude)
    deviation = np.sqrt(_greatest(index, seen.squares_about(read)))
    largest = np.max([kernel.max(axis=(2, 3)).ravel() for kernel in kernels], axis=0)
    weight = _greatest(index, largest)
    usable = (range_ > 0) & (deviation > 0) & (weight > 0)
    if not usable.any():
        return [_Change(np.ones(channels, np.float32), np.zeros(channels, np.float32))]
    changes = []
    for spread, share in itertools.product((range_, deviation), _SHARES):
        factor = np.where(usable, spread, 1.0) ** share / np.where(usable, weight, 1.0) ** (1 - share)
        # Nothing reads a channel whose weights are zero: its range should not widen the scale.
        unread = range_ / np.max(range_[usable] / factor[usable])
        factor = np.where(usable, factor, np.where(range_ > 0, unread, 1.0))
        changes.append(_Change(factor.astype(np.float32), shift.astype(np.float32)))
    return changes


def _best(
    candidates: list[_Change],
    index: np.ndarray,
    seen: _Statistics,
    kernels: list[np.ndarray],
    weight_bits: int,
    activation_bits: int,
) -> _Change:
    """Returns the change with the least error of the next products."""
    errors = [
        _expected_error(change.factors[index], change.shift[index], seen, kernels, weight_bits, activation_bits)
        for change in candidates
    ]
    return candidates[int(np.argmin(errors))]


def _expected_error(factors, shift, seen: _Statistics, kernels, weight_bits: int, activation_bits: int) -> float:
    """Returns the noise of the next products, summed up over their output channels, which have a signal of 1.

    The values of some samples are quantized with the range of the others: channels of equal ranges have less rounding,
    but values beyond the range are clipped in all of them. The step h of an output channel is its greatest weight over
    the levels, and adds the mean square h**2 / 12. Inputs are taken as independent.
    """
    scheme = QuantizationScheme(bits=activation_bits, signed=False, symmetric=False, narrow_range=False)
    low, high = np.min((seen.low - shift) / factors), np.max((seen.high - shift) / factors)
    scaled = (seen.rows - shift) / factors
    scale, zero_point = numerics.scale_from_range(min(low, 0.0), max(high, 0.0), scheme, np)
    restored = numerics.dequantize(numerics.quantize(scaled, scale, zero_point, scheme, np), scale, zero_point)
    noise = factors**2 * np.mean((restored - scaled) ** 2, axis=0, dtype=np.float64)
    squares = seen.squares_about(shift)
    total = 0.0
    for kernel in kernels:  # (groups, inputs of a group, taps, outputs of a group)
        by_input = (kernel.shape[0], -1, 1, 1)
        factor = factors.reshape(by_input)
        of_activation = np.sum(kernel**2 * noise.reshape(by_input), axis=(1, 2))
        steps = np.max(kernel * factor, axis=(1, 2)) / 2.0 ** (weight_bits - 1)
        of_weights = steps**2 / 12 * np.sum(squares.reshape(by_input) / factor**2, axis=(1, 2)) * kernel.shape[2]
        total += float(np.sum(of_activation + of_weights))
    return total


def _normalized(kernel: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Returns a kernel whose output channels have a variance of 1, or of 0, so that all count alike."""
    signal = np.sum(kernel**2 * variance.reshape(kernel.shape[0], -1, 1, 1), axis=(1, 2), keepdims=True)
    return np.where(signal > 0, kernel / np.sqrt(np.where(signal > 0, signal, 1.0)), 0.0)


def _magnitudes(call: Call, variable: keras.Variable, axis: int, channels: int) -> np.ndarray:
    """Returns the magnitudes of a kernel, (groups, inputs of a group, taps, outputs of a group)."""
    kernel = np.abs(float32_array(variable))
    depthwise = is_depthwise(call.operation) or variable is getattr(call.operation, "depthwise_kernel", None)
    groups = channels if depthwise else getattr(call.operation, "groups", 1)
    kernel = np.moveaxis(kernel, axis, 0)  # the outputs of all groups are last, but for a transposed convolution
    kernel = kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
    if groups == 1:
        return kernel[None]
    if groups == channels == kernel.shape[0]:
        return kernel[:, None]
    by_group = kernel.reshape(*kernel.shape[:2], groups, -1)
    return by_group.transpose(2, 0, 1, 3)


def _greatest(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the greatest value of each channel of the source."""
    result = np.full(index.max() + 1, -np.inf)
    np.maximum.at(result, index, values)
    return result
