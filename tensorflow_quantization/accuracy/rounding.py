"""`round_weights`: chooses the integers of each kernel so that the outputs change least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.accuracy.bias_correction import BiasCorrection
from tensorflow_quantization.accuracy.channel_factors import inner_tensor
from tensorflow_quantization.accuracy.coordinate_descent import rounded_to_moment
from tensorflow_quantization.accuracy.kernels import Kernel, check_quantized, kernels_of
from tensorflow_quantization.accuracy.layer_by_layer import Method, Step, layer_by_layer
from tensorflow_quantization.accuracy.scale_search import Part, best_scale, refitted_scale
from tensorflow_quantization.accuracy.second_moment import Regression, SecondMoment
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.scale_groups import grouped, ungrouped

#: Positions of each sample that are taken as rows.
_POSITIONS = 32
#: Inputs of an output channel that are rounded together: their moment takes the square of it.
_TOGETHER = 4096


def round_weights(quantized: keras.Model, data: Any = None, model: keras.Model | None = None) -> keras.Model:
    """Chooses the integers of each kernel so that the outputs change least, instead of the nearest integers.

    Rounding errors of the nearest integers add up: their sum shifts a channel by a constant. Here, an integer is one
    up or down if that makes up for the errors of the others. What counts is the mean square of a product's error,
    dᵀ E[x xᵀ] d for a channel whose weights change by d (arXiv:2004.10568, equation 13), and it is lowered input by
    input (coordinate descent, arXiv:2309.01885). Below 8 bits, each output channel, or block of it, gets the scale for
    which that is lowest, see `scale_search`.

    With the float model, a kernel also makes up for what the layers before it changed, see `Regression`, and its bias
    for the means, as `correct_biases` does it.

    Examples:
        >>> quantized = quantize_model(model)
        >>> quantized = round_weights(quantized)
        >>> weights = quantized.get_layer("quant_conv").layer.kernel.numpy()

    Args:
        quantized: the result of `quantize_model`; changed in place. With data, it is calibrated.
        data: the calibration set as `calibrate` takes it, for the moments of what each kernel multiplies. All samples
            are in memory at once: a few hundred are enough. `None` (default): nothing is known of the inputs, and each
            output channel, or block of it, keeps the sum of its weights.
        model: the float model that `quantized` was made from; default `None`. Needs data.

    Returns:
        `quantized`. A kernel holds the chosen integers times their scale, so saving, exporting and training start from
        them. Kernels of custom layers keep the nearest integers; with data, kernels of layers that are called several
        times do, too; without data, kernels of FP8 numbers.

    Raises:
        TypeError: `quantized` is no `keras.Model`.
        ValueError: it has no quantized kernels, is not calibrated, or was not made from `model`; there is a model but
            no data; the data does not fit its inputs, or a tensor is NaN or infinite. The model is as before then.
    """
    check_quantized(quantized, calibrated=data is not None)
    if data is None:
        if model is not None:
            raise ValueError("The float model is compared with on data: pass data, too, or leave the model out.")
        for kernel in kernels_of(quantized):
            weight, scale, pinned = kernel.matrices()
            integers = _keeping_sums(kernel.quantizer.scheme, weight, scale, pinned)
            kernel.assign(np.where(pinned, weight, integers * scale))
        return quantized
    methods: list[Method] = [WeightRounding()] if model is None else [WeightRounding(), BiasCorrection()]
    layer_by_layer(quantized, data, methods, model)
    return quantized


class WeightRounding:
    """The method of `round_weights` for one layer at a time, see `layer_by_layer`.

    Attributes:
        exact: the kernels that were rounded, before it, by the id of their wrapper and their name.
    """

    def __init__(self) -> None:
        self.exact: dict[tuple[int, str], np.ndarray] = {}
        self._random = np.random.default_rng(0)

    def improve(self, step: Step) -> None:
        for kernel in kernels_of(step.call.operation, floating=True):
            self._round(kernel, step)  # before the next is looked at, which may read what this one makes

    def _round(self, kernel: Kernel, step: Step) -> None:
        moments: list[SecondMoment] = []
        regression = Regression()
        references = _float_inputs(kernel, step)

        def observe(wrapper, name, inputs):
            if wrapper is not kernel.wrapper or name != kernel.name:
                return
            inputs, reference = float32_array(inputs), next(references, None)
            positions: list[np.ndarray] = []

            def choose(samples, count):
                if not positions:
                    positions.append(self._positions(samples, count))
                return positions[0]

            # A copy: NumPy multiplies the matrices of many groups ten times slower where they are strided.
            rows = np.ascontiguousarray(kernel.form.rows(inputs, choose))
            if not np.isfinite(rows).all():
                raise ValueError(f"{step.call.path!r} got values that are NaN or infinite. Check the data.")
            parts = _parts(rows, axis=2)
            moments.extend(SecondMoment() for _ in parts[len(moments) :])
            for moment, part in zip(moments, parts, strict=True):
                moment.update(part, len(inputs))
            if reference is not None and reference.shape == inputs.shape and len(parts) == 1:
                regression.update(rows, np.ascontiguousarray(kernel.form.rows(reference, choose)))

        step.observe_products(observe)
        if not moments:
            return
        if regression.rows == moments[0].rows:
            kernel.assign(regression.kernel(kernel.form.matrix(kernel.value), moments[0]))
        self.exact[id(kernel.wrapper), kernel.name] = kernel.value
        _choose(kernel, [moment.estimate() for moment in moments])

    def _positions(self, samples: int, positions: int) -> np.ndarray:
        """Returns random positions of each sample, without order."""
        count = min(positions, _POSITIONS)
        chosen = self._random.random((samples, positions)).argpartition(count - 1, axis=1)[:, :count]
        return np.stack([np.repeat(np.arange(samples), count), chosen.ravel()], axis=1)


def _parts(array: np.ndarray, axis: int = 1) -> list[np.ndarray]:
    return np.array_split(array, range(_TOGETHER, array.shape[axis], _TOGETHER), axis=axis)


def _float_inputs(kernel: Kernel, step: Step) -> Iterator[np.ndarray]:
    """Yields what the kernel multiplies in the float model, for each batch; nothing where that is not known."""
    call = step.reference
    if call is None or kernel.wrapper is not step.call.operation:
        return
    is_inner = kernel.name == "pointwise_kernel"
    for args, _ in step.reference_arguments:
        if not args or isinstance(args[0], list | tuple | dict):
            return
        yield float32_array(inner_tensor(call, args[0]) if is_inner else args[0])


def _choose(kernel: Kernel, moments: list[np.ndarray]) -> None:
    """Sets a kernel to integers times scale."""
    weight, scale, pinned = kernel.matrices()
    scheme = kernel.quantizer.scheme
    parts = [Part(*part) for part in zip(_parts(weight), _parts(pinned), moments, strict=True)]
    searched = _best_scale(kernel, parts, scale)
    scales = _parts(scale if searched is None else searched)
    integers = [rounded_to_moment(p.weight, s, p.pinned, p.moment, scheme) for p, s in zip(parts, scales, strict=True)]
    chosen = np.concatenate(integers, axis=1)
    if searched is None:
        kernel.assign(np.where(pinned, weight, chosen * scale))
        return
    if scheme.block_size is None:
        searched = refitted_scale(parts, integers, searched[:, :1])
    kernel.assign(chosen * searched)


def _best_scale(kernel: Kernel, parts: list[Part], scale: np.ndarray) -> np.ndarray | None:
    """Returns the best scale of each channel or block, (G, K, M); `None` where there is no choice, or 8 bits."""
    scheme = kernel.quantizer.scheme
    if scheme.bits >= 8 or not kernel.quantizer.follows_weight:
        return None
    if scheme.block_size is not None:
        return _scale_of_blocks(parts[0], scale, scheme) if len(parts) == 1 else None
    if not np.any([part.pinned.any(axis=1) for part in parts], axis=0).all():
        return None  # several channels share a scale
    return np.broadcast_to(best_scale(parts, scale[:, :1], scheme), scale.shape)


def _scale_of_blocks(part: Part, scale: np.ndarray, scheme: QuantizationScheme) -> np.ndarray:
    """Returns the best scale of each block for its own inputs, (1, K, M)."""
    weights, scales, pins = _in_blocks(scheme, part.weight, scale, part.pinned)
    blocks, size, _ = weights.shape
    missing = blocks * size - part.moment.shape[1]
    moment = np.pad(part.moment[0], (0, missing)).reshape(blocks, size, blocks, size)
    within = moment[np.arange(blocks), :, np.arange(blocks)]
    found = best_scale([Part(weights, pins, within)], scales[:, :1], scheme)
    by_column = replace(scheme, axis=(-1,))
    return ungrouped(np.broadcast_to(found, weights.shape), part.weight.shape[1:], by_column, np)[None]


def _in_blocks(scheme: QuantizationScheme, weight, scale, pinned) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns matrices (1, K, M) as blocks of their rows, (blocks, block size, M); a shorter last one is filled up."""
    by_column = replace(scheme, axis=(-1,))
    weights, scales, pins = (grouped(matrix[0], by_column, np)[0] for matrix in (weight, scale, pinned))
    return weights, np.where(scales > 0, scales, 1.0), pins


def _keeping_sums(scheme: QuantizationScheme, weight, scale, pinned) -> np.ndarray:
    """Returns the integers that keep the sum of each channel, or of each block of it, (G, K, M)."""
    if scheme.block_size is None:
        return rounded_to_sums(weight, scale, pinned, scheme.qmin, scheme.qmax)
    integers = rounded_to_sums(*_in_blocks(scheme, weight, scale, pinned), scheme.qmin, scheme.qmax)
    return ungrouped(integers, weight.shape[1:], replace(scheme, axis=(-1,)), np)[None]


def rounded_to_sums(weight, scale, pinned, qmin: int, qmax: int) -> np.ndarray:
    """Returns the integers whose sum, for each output channel, is nearest to the sum of the weights.

    As many of the nearest integers go one up, or down, as the sum lacks: the ones that were rounded down, or up, most.

    Args:
        weight: float, (G, K, M).
        scale: float, in the same shape; positive, one value for each output channel.
        pinned: bool, in the same shape; these keep the nearest integer.
        qmin, qmax: the lowest and the highest integer.

    Returns:
        Whole numbers, float, (G, K, M).
    """
    exact = weight / scale
    integers = np.clip(np.round(exact), qmin, qmax)
    lacking = (exact - integers).sum(axis=1, keepdims=True)
    direction = np.where(lacking > 0, 1.0, -1.0)
    moved = integers + direction
    free = ~pinned & (moved >= qmin) & (moved <= qmax)
    rounded_off = np.where(free, (exact - integers) * direction, -np.inf)
    rank = np.argsort(np.argsort(-rounded_off, axis=1, kind="stable"), axis=1, kind="stable")
    return np.where(free & (rank < np.round(np.abs(lacking))), moved, integers)
