"""`rounded_to_moment`: the integers of a weight for which what it multiplies changes least, by coordinate descent."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.quantizers import QuantizationScheme, numerics

#: Passes over the inputs; the last ones change next to nothing.
_PASSES = 4
#: Inputs whose effect on the others is applied at once.
_BLOCK = 64


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


def squared_error(error: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Returns dᵀ moment d for each output channel: what the products change by, squared, in the mean.

    Args:
        error: d, float, (G, K, M).
        moment: float, (G, K, K).

    Returns:
        An array (G, 1, M).
    """
    return (error * (moment @ error)).sum(axis=1, keepdims=True)
