"""`MSE`: the range with the least mean squared quantization error."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorflow_quantization.calibration.histogram import Histogram
from tensorflow_quantization.quantizers import QuantizationScheme, numerics

#: Candidate ranges as fractions of the min/max range. Below a tenth, clipping costs more than the finer step saves.
_FRACTIONS = np.linspace(0.1, 1.0, 91)


class MSE(Histogram):
    """Estimates the range with the least mean of (quantized - x)**2 over all values.

    A narrower range clips more values and has a finer step. 91 fractions of the min/max range are compared, from 0.1
    to 1. For asymmetric schemes, the upper end and then the lower end are also compared alone. With 16 bits, the
    range is from the least to the greatest value.

    Examples:
        >>> estimator = MSE()
        >>> estimator.update(np.append(np.linspace(-1.0, 1.0, 999), 4.0))  # one outlier
        >>> low, high = estimator.range(QuantizationScheme(bits=2))
        >>> print(high < 4.0)
        True
    """

    def range(self, scheme):
        if self.is_coarser_than(scheme):
            return self.low, self.high
        lows, highs = np.outer([self.low, self.high], _FRACTIONS)
        low, high = self._best(lows, highs, scheme)
        if not scheme.symmetric:
            low, high = self._best(low, _FRACTIONS * self.high, scheme)
            low, high = self._best(_FRACTIONS * self.low, high, scheme)
        return low, high

    def _best(self, low: Any, high: Any, scheme: QuantizationScheme) -> tuple[float, float]:
        low, high = np.broadcast_arrays(low, high)
        # Of equal ones the widest: a range that ends beside zero tells no more than the values' own end.
        best = len(low) - 1 - np.argmin(self._errors(low, high, scheme)[::-1])
        return float(low[best]), float(high[best])

    def _errors(self, low: np.ndarray, high: np.ndarray, scheme: QuantizationScheme) -> np.ndarray:
        """Returns the sum of (quantized - x)**2 for each range.

        All values that round to one level add up to sum(x**2) - 2 * level * sum(x) + level**2 * count. These sums over
        neighbouring bins are differences of cumulative sums, so the time depends on the levels, not on the bins.
        """
        scale, zero_point = numerics.scale_from_range(low, high, scheme, np)
        levels = (scheme.levels - zero_point[:, None]) * scale[:, None]
        x = self.centers
        ends = np.searchsorted(x, (levels[:, 1:] + levels[:, :-1]) / 2)
        ends = np.pad(ends, [(0, 0), (1, 1)], constant_values=[(0, 0), (0, len(x))])
        count, first, second = (np.diff(np.append(0.0, np.cumsum(self.counts * x**power))[ends]) for power in (0, 1, 2))
        return np.sum(second - 2 * levels * first + levels**2 * count, axis=1)
