"""`SignalToNoise`: how far a quantized model's outputs are from the float model's, in decibels."""

from __future__ import annotations

import math

import numpy as np


class SignalToNoise:
    """Sums up signal and noise batch by batch.

    Examples:
        >>> ratio = SignalToNoise()
        >>> ratio.update(np.array([10.0, 10.0]), np.array([11.0, 9.0]))
        >>> round(ratio.decibels, 3)
        20.0
    """

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def update(self, expected: np.ndarray, got: np.ndarray) -> None:
        """Adds a batch: what the float model returns, and what the quantized model returns instead."""
        expected = np.asarray(expected, np.float64)
        self.signal += float((expected**2).sum())
        self.noise += float(((expected - np.asarray(got, np.float64)) ** 2).sum())

    @property
    def decibels(self) -> float:
        """10 log10(signal / noise); infinite without noise."""
        if self.noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.signal / self.noise) if self.signal else -math.inf
