"""`round_weights`: chooses the integers of each kernel so that the outputs change least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.accuracy.bias_correction import BiasCorrection
from tensorflow_quantization.accuracy.channel_factors import inner_tensor
from tensorflow_quantization.accuracy.kernels import Kernel, check_quantized, kernels_of
from tensorflow_quantization.accuracy.layer_by_layer import Method, Step, layer_by_layer
from tensorflow_quantization.accuracy.second_moment import Regression, SecondMoment
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import QuantizationScheme, numerics
from tensorflow_quantization.quantizers.scale_groups import grouped, ungrouped

#: Positions of each sample that are taken as rows.
_POSITIONS = 32
#: Inputs of an output channel that are rounded together: their moment takes the square of it.
_TOGETHER = 4096
#: Passes over the inputs; the last ones change next to nothing.
_PASSES = 4
#: Inputs whose effect on the others is applied at once.
_BLOCK = 64


def round_weights(quantized: keras.Model, data: Any = None, model: keras.Model | None = None) -> keras.Model:
    """Chooses the integers of each kernel so that the outputs change least, instead of the nearest integers.

    Rounding errors of the nearest integers add up: their sum shifts a channel by a constant. Here, an integer is one
    up or down if that makes up for the errors of the others. What counts is the mean square of a product's error,
    dᵀ E[x xᵀ] d for a channel whose weights change by d (arXiv:2004.10568, equation 13), and it is lowered input by
    input (coordinate descent, arXiv:2309.01885).

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
    weight, scale, pinned = kernel.matrices()
    scheme = kernel.quantizer.scheme
    rounded = [
        rounded_to_moment(w, s, p, moment, scheme)
        for w, s, p, moment in zip(_parts(weight), _parts(scale), _parts(pinned), moments, strict=True)
    ]
    kernel.assign(np.where(pinned, weight, np.concatenate(rounded, axis=1) * scale))


def _keeping_sums(scheme: QuantizationScheme, weight, scale, pinned) -> np.ndarray:
    """Returns the integers that keep the sum of each channel, or of each block of it, (G, K, M)."""
    if scheme.block_size is None:
        return rounded_to_sums(weight, scale, pinned, scheme.qmin, scheme.qmax)
    by_column = replace(scheme, axis=(-1,))
    weights, scales, pins = (grouped(matrix[0], by_column, np)[0] for matrix in (weight, scale, pinned))
    scales = np.where(scales > 0, scales, 1.0)  # beyond the end of a shorter last block
    integers = rounded_to_sums(weights, scales, pins, scheme.qmin, scheme.qmax)
    return ungrouped(integers, weight.shape[1:], by_column, np)[None]


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


def rounded_to_moment(weight, scale, pinned, moment, scheme: QuantizationScheme) -> np.ndarray:
    """Returns the integers, or FP8 numbers, of a weight for which dᵀ moment d is low.

    Here, d is their difference from the weight. Coordinate descent from the nearest integers: an input after the other
    gets the integer that is best for the integers of all others, so that dᵀ moment d never rises.

    Args:
        weight: float, (G, K, M).
        scale: float, in the same shape; positive.
        pinned: bool, in the same shape; these keep the nearest integer.
        moment: float, (G, K, K); its diagonal is positive.
        scheme: the integers; symmetric and signed.

    Returns:
        Whole numbers, or FP8 numbers, float, (G, K, M).
    """
    integers = numerics.quantize(weight, scale, 0.0, scheme, np)
    error = integers * scale - weight
    gradient = moment @ error
    curvature = np.maximum(np.diagonal(moment, axis1=1, axis2=2), np.finfo(np.float32).tiny)
    for _ in range(_PASSES):
        changed = False
        for start in range(0, weight.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            before = error[:, block].copy()
            local = gradient[:, block].copy()
            within = moment[:, block, block]
            for i, k in enumerate(range(*block.indices(weight.shape[1]))):
                best = error[:, k] - local[:, i] / curvature[:, k, None]
                chosen = numerics.quantize(weight[:, k] + best, scale[:, k], 0.0, scheme, np)
                chosen = np.where(pinned[:, k], integers[:, k], chosen)
                change = (chosen - integers[:, k]) * scale[:, k]
                local += within[:, :, i, None] * change[:, None]
                integers[:, k] = chosen
                error[:, k] += change
            change = error[:, block] - before
            if change.any():
                gradient += moment[:, :, block] @ change
                changed = True
        if not changed:
            break
    return integers
