"""`RangeEstimator`: the base class of the calibration methods."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from tensorflow_quantization.quantizers import QuantizationScheme


class RangeEstimator(ABC):
    """Estimates the range of one tensor from the batches of a calibration set.

    `calibrate` makes one estimator for each quantizer. An estimator should need constant memory, however many batches
    the calibration set has.

    Examples:
        >>> class Doubled(RangeEstimator):
        ...     def __init__(self):
        ...         self.largest = 0.0
        ...     def update(self, x):
        ...         self.largest = max(self.largest, float(np.abs(x).max()))
        ...     def range(self, scheme):
        ...         return -2 * self.largest, 2 * self.largest
        >>> estimator = Doubled()
        >>> estimator.update(np.array([0.5, -1.5]))
        >>> estimator.range(QuantizationScheme())
        (-3.0, 3.0)
    """

    @abstractmethod
    def update(self, x: np.ndarray) -> None:
        """Adds one batch to the statistics.

        Args:
            x: float32 array of any shape with at least one value; all values are finite.
        """

    @abstractmethod
    def range(self, scheme: QuantizationScheme) -> tuple[float, float]:
        """Returns the estimated range; called after at least one `update`.

        Args:
            scheme: the integers that the range will be quantized to.

        Returns:
            (low, high), in the unit of the tensor.
        """
