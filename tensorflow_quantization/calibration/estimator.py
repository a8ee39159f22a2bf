"""`RangeEstimator` and `MergeableEstimator`: the base classes of the calibration methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from keras import ops

from tensorflow_quantization.quantizers import QuantizationScheme


class RangeEstimator(ABC):
    """Estimates the range of one tensor from the batches of a calibration set.

    `calibrate` makes one estimator for each quantizer. An estimator should need constant memory, however many batches
    the calibration set has. A `MergeableEstimator` is many times faster: it runs inside the compiled model.

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


class MergeableEstimator(RangeEstimator):
    """Base class of estimators whose statistics of a batch are computed on the backend, and merge.

    `calibrate` calls `statistics` inside the compiled model. `save_calibration` writes the statistics, so that
    `merge_calibrations` can join the results of several machines. The statistics of two halves of the data must merge
    to the statistics of the whole, bit for bit.

    The base class keeps the least and the greatest value.

    Examples:
        >>> class Margin(MergeableEstimator):
        ...     def range(self, scheme):
        ...         return 1.1 * self.low, 1.1 * self.high
        >>> estimator = Margin()
        >>> estimator.update(np.array([-1.0, 2.0]))
        >>> estimator.range(QuantizationScheme())
        (-1.1, 2.2)

    Attributes:
        low, high: float; the least and the greatest value so far.
    """

    def __init__(self):
        self.low, self.high = np.inf, -np.inf

    @staticmethod
    def statistics(x: Any, xp: Any = ops) -> dict[str, Any]:
        """Returns the statistics of one batch.

        Args:
            x: float32 tensor of any shape with at least one value; in a compiled model, its sizes are unknown.
            xp: `keras.ops` (default) or `numpy`.

        Returns:
            {name: array}. "low" and "high" must be there, and NaN or infinite if a value of `x` is. The first axis of
            each array has size 1: statistics of several batches are concatenated along this axis.
        """
        # XLA's minimum on a CPU may lose a NaN.
        problem = xp.where(xp.all(xp.isfinite(x)), np.float32(0), np.float32(np.nan))
        return {name: xp.reshape(end(x) + problem, (1,)) for name, end in (("low", xp.min), ("high", xp.max))}

    def merge(self, low: np.ndarray, high: np.ndarray, **others: np.ndarray) -> None:
        """Adds the statistics of batches.

        Args:
            low, high: arrays of shape (batches,).
            **others: what else `statistics` of a subclass returns.
        """
        self.low = min(self.low, float(low.min()))
        self.high = max(self.high, float(high.max()))

    def merged(self) -> dict[str, np.ndarray]:
        """Returns what has been merged so far, as `statistics` returns a batch."""
        return {"low": np.array([self.low], np.float32), "high": np.array([self.high], np.float32)}

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, for files."""
        return {}

    def update(self, x):
        self.merge(**self.statistics(np.asarray(x, np.float32), np))
