"""`MinMax`: the range from the least value to the greatest."""

from __future__ import annotations

from tensorflow_quantization.calibration.estimator import MergeableEstimator


class MinMax(MergeableEstimator):
    """Min/max observer: estimates the range from the least value to the greatest.

    No value of the calibration set is clipped. One outlier widens the range, and with it the step of all other values.

    Examples:
        >>> estimator = MinMax()
        >>> estimator.update(np.array([-1.0, 0.5, 3.0]))
        >>> estimator.range(QuantizationScheme())
        (-1.0, 3.0)
    """

    def range(self, scheme):
        return self.low, self.high


#: The former name of `MinMax`.
Max = MinMax
