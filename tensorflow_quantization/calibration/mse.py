"""`MSE`: the range with the least mean squared quantization error."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.calibration.histogram import Histogram
from tensorflow_quantization.quantizers import QuantizationScheme, numerics

#: Candidate ranges as fractions of the min/max range. Below a tenth, clipping costs more than the finer step saves.
_FRACTIONS = np.linspace(0.1, 1.0, 91)


class MSE(Histogram):
    """Estimates the range with the least mean of (quantized - x)**2 over all values.

    A narrower range clips more values and has a finer step. 91 fractions of the min/max range are compared, from 0.1
    to 1. For asymmetric schemes, the upper end and then the lower end are also compared alone.

    Examples:
        >>> estimator = MSE()
        >>> estimator.update(np.append(np.linspace(-1.0, 1.0, 999), 4.0))  # one outlier
        >>> low, high = estimator.range(QuantizationScheme(bits=2))
        >>> print(high < 4.0)
        True
    """

    def range(self, scheme):
        low, high = self.low, self.high
        best = self._best([(f * low, f * high) for f in _FRACTIONS], scheme)
        if not scheme.symmetric:
            best = self._best([(best[0], f * high) for f in _FRACTIONS], scheme)
            best = self._best([(f * low, best[1]) for f in _FRACTIONS], scheme)
        return best

    def _best(self, candidates: list[tuple[float, float]], scheme: QuantizationScheme) -> tuple[float, float]:
        return min(candidates, key=lambda range_: self._error(range_, scheme))

    def _error(self, range_: tuple[float, float], scheme: QuantizationScheme) -> float:
        x, counts = self._occupied()
        low, high = np.array(range_)
        scale, zero_point = numerics.scale_from_range(low, high, scheme, np)
        quantized = numerics.dequantize(numerics.quantize(x, scale, zero_point, scheme, np), scale, zero_point)
        return float(np.sum(counts * (quantized - x) ** 2))

    def _occupied(self) -> tuple[np.ndarray, np.ndarray]:
        occupied = self.counts > 0
        return self.centers[occupied], self.counts[occupied]
