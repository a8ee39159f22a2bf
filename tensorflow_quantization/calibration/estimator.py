"""`RangeEstimator`: what every calibration method is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from tensorflow_quantization.quantizers import QuantizationScheme


class RangeEstimator(ABC):
    """Estimates the range of one tensor from batches of it, in memory that does not grow with them."""

    @abstractmethod
    def update(self, x: np.ndarray) -> None:
        """See one batch: finite floats of any shape, at least one."""

    @abstractmethod
    def range(self, scheme: QuantizationScheme) -> tuple[float, float]:
        """The range (low, high) for quantization by `scheme`, once at least one batch has been seen."""
