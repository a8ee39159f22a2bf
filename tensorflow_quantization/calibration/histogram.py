"""`Histogram`: the distribution of a tensor, in constant memory."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.calibration.estimator import MergeableEstimator
from tensorflow_quantization.quantizers import QuantizationScheme

#: Bins on each side of zero. The limit is at most twice the greatest magnitude, so one side uses at least half of its
#: bins.
BINS = 4096
#: The limit is 2 to the power of one of these. All magnitudes of float32 are below the greatest. Values below the
#: least, in which no activation lives, are all in the bins next to zero.
_EXPONENTS = range(-100, 129)
_POWERS = np.ldexp(np.float32(1), np.arange(_EXPONENTS[0], _EXPONENTS[-1]))
#: Bins for each unit, by exponent: exact in float32, and so is the product of a value with them.
_DENSITIES = np.ldexp(np.float32(BINS), [-exponent for exponent in _EXPONENTS])


class Histogram(MergeableEstimator):
    """Base class of estimators that count values in 8192 equal bins over (-limit, limit).

    The limit is the least power of two above all magnitudes. If a value exceeds the limit, the limit doubles as often
    as needed, and neighbouring bins merge in pairs. So the counts depend on the values alone, neither on their order
    nor on the batches: histograms of parts of the data add up to the histogram of the whole data.

    Examples:
        >>> class Median(Histogram):
        ...     def range(self, scheme):
        ...         median = self.centers[np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2)]
        ...         return min(0.0, median), max(0.0, median)
        >>> estimator = Median()
        >>> estimator.update(np.array([1.0, 2.0, 10.0]))
        >>> low, high = estimator.range(QuantizationScheme())
        >>> print(round(high, 1))
        2.0

    Attributes:
        low, high: float; the least and the greatest value so far.
        exponent: int; the logarithm of the limit to base 2, at least -100.
        counts: int64 array of shape (8192,); the number of values in each bin, in ascending order.
    """

    def __init__(self):
        super().__init__()
        self.exponent = _EXPONENTS[0]
        self.counts = np.zeros(2 * BINS, np.int64)

    @staticmethod
    def statistics(x, xp=ops):
        found = MergeableEstimator.statistics(x, xp)
        greatest = xp.maximum(-found["low"], found["high"])
        index = xp.sum(_int32(xp.greater_equal(greatest, _POWERS), xp))
        # Towards zero, and one bin lower below it: then a tiny negative value, whose product underflows, is not zero.
        bins = _int32(x * xp.take(_DENSITIES, index), xp) + xp.where(x < 0, BINS - 1, BINS)
        # No finite value is clipped. NaN and infinity, which are errors, would be no index.
        bins = xp.clip(bins, 0, 2 * BINS - 1)
        counts = _bincount(xp.reshape(bins, (-1,)), xp)
        return {**found, "exponent": xp.reshape(index, (1,)) + _EXPONENTS[0], "counts": xp.reshape(counts, (1, -1))}

    def merge(self, low, high, exponent, counts):  # type: ignore[override]
        super().merge(low, high)
        for limit, count in zip(exponent.tolist(), counts, strict=True):
            joint = max(self.exponent, limit)
            self.counts = _coarser(self.counts, joint - self.exponent) + _coarser(count, joint - limit)
            self.exponent = joint

    def merged(self):
        return {**super().merged(), "exponent": np.array([self.exponent]), "counts": self.counts[None]}

    def is_coarser_than(self, scheme: QuantizationScheme) -> bool:
        """Whether the steps of a scheme are finer than the bins, which then do not tell what clipping would gain."""
        return 2**scheme.bits > 2 * BINS

    @property
    def limit(self) -> float:
        """The outer edge of the bins, a power of two."""
        return 2.0**self.exponent

    @property
    def centers(self) -> np.ndarray:
        """The centers of the bins, a float64 array of shape (8192,).

        The center of the bin above zero is set to 0: this bin holds the zeros, which many activations consist of.
        """
        centers = (np.arange(-BINS, BINS) + 0.5) * (self.limit / BINS)
        centers[BINS] = 0.0
        return centers

    @property
    def edges(self) -> np.ndarray:
        """The edges of the bins, a float64 array of shape (8193,)."""
        return np.arange(-BINS, BINS + 1) * (self.limit / BINS)


def _int32(x: Any, xp: Any) -> Any:
    return x.astype(np.int32) if xp is np else ops.cast(x, "int32")


def _bincount(bins: Any, xp: Any) -> Any:
    # Keras' bincount cannot be compiled on JAX, and is many times faster than a sum by segments elsewhere.
    if xp is ops and keras.backend.backend() == "jax":
        return ops.segment_sum(ops.ones_like(bins), bins, num_segments=2 * BINS)
    return xp.bincount(bins, minlength=2 * BINS)


def _coarser(counts: np.ndarray, doublings: int) -> np.ndarray:
    """Returns the counts for a limit that doubles so many times."""
    if doublings == 0:
        return counts
    coarser = np.zeros(2 * BINS, np.int64)
    # The bin at offset i from zero merges into offset i >> doublings. The shift rounds down: negative offsets stay
    # negative. Numpy does not define shifts by more than 63.
    np.add.at(coarser, (np.arange(-BINS, BINS) >> min(doublings, 63)) + BINS, counts)
    return coarser
