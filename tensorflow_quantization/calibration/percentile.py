"""`Percentile`: the range that holds a percentage of the values."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.calibration.histogram import BINS, Histogram


class Percentile(Histogram):
    """Estimates a range that holds a percentage of the values, so that outliers are clipped.

    For symmetric signed schemes the percentile is taken of abs(x) (arXiv:2004.09602, section 4.2). For all others it
    is taken at each end of the distribution: the range starts above the lowest, and ends below the highest,
    100 - `percentile` percent of the values.

    Examples:
        >>> estimator = Percentile(99.0)
        >>> estimator.update(np.append(np.linspace(-1.0, 1.0, 999), 50.0))  # one outlier
        >>> low, high = estimator.range(QuantizationScheme())
        >>> print(round(high, 1))
        1.0

    Args:
        percentile: float, in percent; above 50, at most 100; default 99.99.

    Raises:
        ValueError: `percentile` is not in these bounds.
    """

    def __init__(self, percentile: float = 99.99):
        if not 50 < percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, got {percentile!r}.")
        super().__init__()
        self.percentile = percentile
        self.fraction = percentile / 100

    def arguments(self):
        return {"percentile": self.percentile}

    def range(self, scheme):
        if scheme.symmetric and scheme.signed:
            magnitudes = self.counts[BINS:] + self.counts[:BINS][::-1]
            limit = self.edges[BINS + 1 + _quantile(magnitudes, self.fraction)]
            return max(self.low, -limit), min(self.high, limit)
        low = self.edges[2 * BINS - 1 - _quantile(self.counts[::-1], self.fraction)]
        high = self.edges[1 + _quantile(self.counts, self.fraction)]
        return max(self.low, low), min(self.high, high)


def _quantile(counts: np.ndarray, fraction: float) -> int:
    """Returns the index of the first bin at which the cumulative count reaches `fraction` of all counts."""
    return int(np.searchsorted(np.cumsum(counts), fraction * counts.sum()))
