"""`Histogram`: the distribution of a tensor, in constant memory."""

from __future__ import annotations

import math

import numpy as np

from tensorflow_quantization.calibration.estimator import RangeEstimator

#: Bins on each side of zero. The limit is less than twice the greatest magnitude, so one side uses at least half of its
#: bins.
BINS = 4096


class Histogram(RangeEstimator):
    """Base class of estimators that count values in 8192 equal bins over [-limit, limit].

    If a value exceeds the limit, the limit doubles as often as needed, and neighbouring bins merge in pairs.

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
        limit: float; the outer edge of the bins, 0 while all values are zero.
        counts: int64 array of shape (8192,); the number of values in each bin, in ascending order.
    """

    def __init__(self):
        self.low, self.high = np.inf, -np.inf
        self.limit = 0.0
        self.counts = np.zeros(2 * BINS, np.int64)

    def update(self, x):
        x = np.asarray(x, np.float32).ravel()
        low, high = float(x.min()), float(x.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(abs(low), abs(high)))
        if self.limit == 0.0:  # only zeros so far, for which `limit` defines no bin
            self.counts[BINS] += x.size
            return
        bins = np.floor(x / self.limit * BINS).astype(np.int64)
        np.minimum(bins, -1, out=bins, where=x < 0)  # x / limit of a tiny negative value underflows to -0
        self.counts += np.bincount(np.clip(bins + BINS, 0, 2 * BINS - 1), minlength=2 * BINS)

    def _grow(self, needed: float) -> None:
        if needed <= self.limit or needed == 0.0:
            return
        if self.limit == 0.0:
            self.limit = needed  # only zeros were counted so far; they stay in the bin above zero
            return
        doublings = math.ceil(math.log2(needed / self.limit))
        merged = np.zeros_like(self.counts)
        # The bin at offset i from zero merges into offset i >> doublings. The shift rounds down: negative offsets stay
        # negative.
        np.add.at(merged, (np.arange(-BINS, BINS) >> doublings) + BINS, self.counts)
        self.counts = merged
        self.limit *= 2.0**doublings

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
