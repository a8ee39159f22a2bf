"""`best_scale`: the scale of each output channel, or block of it, for which rounding changes a product least.

The scale that a weight comes with lets its greatest value be the greatest integer. A smaller one clips that value and
has finer steps for all others; and of scales that differ little, one may have its integers much nearer to the weights,
above all where a channel has only nine of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tensorflow_quantization.accuracy.coordinate_descent import rounded_to_moment, squared_error
from tensorflow_quantization.quantizers import QuantizationScheme, numerics

#: Scales that are compared, and the least of them, in scales of the greatest weight.
_COUNT, _LEAST = 32, 0.25
#: Up to this many inputs, `rounded_to_moment` chooses the integers of each scale; with more, a scale is judged by the
#: nearest integers. On EfficientNet-Lite0, choosing all of them took twice the time for 0.1 dB.
_FEW_INPUTS = 64


class Part(NamedTuple):
    """Inputs of a kernel that are rounded together.

    Attributes:
        weight: float, (G, K, M).
        pinned: bool, in the same shape; the weights that the scale comes from.
        moment: float, (G, K, K), of the inputs.
    """

    weight: np.ndarray
    pinned: np.ndarray
    moment: np.ndarray


def best_scale(parts: Sequence[Part], scale: np.ndarray, scheme: QuantizationScheme) -> np.ndarray:
    """Returns the scale of each channel for which dᵀ moment d is least, where d is what rounding adds to a weight.

    All scales that are compared turn the greatest weight into the greatest integer, so that the rounded kernel has the
    scale that was chosen.

    Args:
        parts: of the kernel; the errors of all parts add up.
        scale: float, (G, 1, M); positive, the scale of the greatest weight.
        scheme: the integers; symmetric and signed.

    Returns:
        Scales in the same shape.
    """
    # Slightly less than half a step above the greatest integer, so that ties play no part.
    most = scheme.qmax / (scheme.qmax - 0.49)
    best, least = scale, np.full(scale.shape, np.inf)
    for factor in (1.0, *np.geomspace(most, _LEAST, _COUNT)):  # of equal errors, the first
        candidate = np.maximum(scale * factor, numerics.SMALLEST_SCALE)
        error = sum(_error(part, candidate, scheme) for part in parts)
        best, least = np.where(error < least, candidate, best), np.minimum(error, least)
    return best


def _error(part: Part, scale: np.ndarray, scheme: QuantizationScheme) -> np.ndarray:
    scales = np.broadcast_to(scale, part.weight.shape)
    if part.weight.shape[1] > _FEW_INPUTS:
        integers = numerics.quantize(part.weight, scales, 0.0, scheme, np)
    else:
        integers = rounded_to_moment(part.weight, scales, part.pinned, part.moment, scheme)
    return squared_error(integers * scales - part.weight, part.moment)


def refitted_scale(parts: Sequence[Part], integers: Sequence[np.ndarray], scale: np.ndarray) -> np.ndarray:
    """Returns the scale of each channel that is best for its integers: qᵀ moment w / qᵀ moment q.

    Args:
        parts: of the kernel.
        integers: of each part, in the shape of its weight.
        scale: float, (G, 1, M); stays where the integers are zeros.

    Returns:
        Scales in the same shape.
    """
    along = sum(
        (q * (part.moment @ part.weight)).sum(axis=1, keepdims=True) for part, q in zip(parts, integers, strict=True)
    )
    square = sum(squared_error(q, part.moment) for part, q in zip(parts, integers, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((along > 0.0) & (square > 0.0), along / square, scale)
