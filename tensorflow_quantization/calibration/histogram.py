"""`Histogram`: the distribution of a tensor in constant memory."""

from __future__ import annotations

import math

import numpy as np

from tensorflow_quantization.calibration.estimator import RangeEstimator

#: Bins on each side of zero. The limit is at most twice the greatest value, so at least half of them are in use.
BINS = 4096


class Histogram(RangeEstimator):
    """Counts values in equal bins over [-limit, limit]; the limit doubles, and bins merge in pairs, as values grow.

    Attributes:
        low, high: the least and the greatest value so far.
        counts: (2 * BINS,) int64.
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
        if self.limit == 0.0:  # zeros only, so far
            self.counts[BINS] += x.size
            return
        bins = np.floor(x / self.limit * BINS).astype(np.int64)
        np.minimum(bins, -1, out=bins, where=x < 0)  # however near to zero
        self.counts += np.bincount(np.clip(bins + BINS, 0, 2 * BINS - 1), minlength=2 * BINS)

    def _grow(self, needed: float) -> None:
        if needed <= self.limit or needed == 0.0:
            return
        if self.limit == 0.0:
            self.limit = needed  # what was counted before are zeros, which stay in the bin above zero
            return
        doublings = math.ceil(math.log2(needed / self.limit))
        merged = np.zeros_like(self.counts)
        # A bin at offset i from zero goes to offset i >> doublings; arithmetic shift keeps the sides apart.
        np.add.at(merged, (np.arange(-BINS, BINS) >> doublings) + BINS, self.counts)
        self.counts = merged
        self.limit *= 2.0**doublings

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin; that of the bin above zero is zero itself, where activations are dense."""
        centers = (np.arange(-BINS, BINS) + 0.5) * (self.limit / BINS)
        centers[BINS] = 0.0
        return centers

    @property
    def edges(self) -> np.ndarray:
        """(2 * BINS + 1,) limits of the bins."""
        return np.arange(-BINS, BINS + 1) * (self.limit / BINS)
