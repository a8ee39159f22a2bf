"""A percentile of the values: rare outliers are clipped."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.calibration.histogram import BINS, Histogram


class Percentile(Histogram):
    """Holds `percentile` percent of the values (arXiv:2004.09602, section 4.2).

    Symmetric integers clip the magnitudes |x|, asymmetric integers clip each end of the distribution.

    Example:
        >>> estimator = Percentile(99.0)
        >>> estimator.update(np.append(np.linspace(-1.0, 1.0, 999), 50.0))  # one outlier
        >>> low, high = estimator.range(QuantizationScheme())
        >>> print(round(high, 1))
        1.0

    Args:
        percentile: above 50, at most 100; default 99.99.

    Raises:
        ValueError: `percentile` is out of these bounds.
    """

    def __init__(self, percentile: float = 99.99):
        if not 50 < percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, got {percentile!r}.")
        super().__init__()
        self.fraction = percentile / 100

    def range(self, scheme):
        if scheme.symmetric and scheme.signed:
            magnitudes = self.counts[BINS:] + self.counts[:BINS][::-1]
            limit = self.edges[BINS + 1 + _quantile(magnitudes, self.fraction)]
            return max(self.low, -limit), min(self.high, limit)
        low = self.edges[2 * BINS - 1 - _quantile(self.counts[::-1], self.fraction)]
        high = self.edges[1 + _quantile(self.counts, self.fraction)]
        return max(self.low, low), min(self.high, high)


def _quantile(counts: np.ndarray, fraction: float) -> int:
    """The first bin up to which `fraction` of the counts lie."""
    return int(np.searchsorted(np.cumsum(counts), fraction * counts.sum()))
