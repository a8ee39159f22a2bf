"""`SignalToNoise`: how far a quantized model's outputs are from the float model's, in `decibels`."""

from __future__ import annotations

from typing import Any

import numpy as np


def decibels(signal: Any, noise: Any) -> Any:
    """Returns 10 * log10(signal / noise): infinite without noise, minus infinite for noise without a signal.

    Examples:
        >>> float(decibels(100.0, 1.0)), float(decibels(0.0, 0.0))
        (20.0, inf)
    """
    signal, noise = np.asarray(signal, np.float64), np.asarray(noise, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(noise > 0, 10 * (np.log10(signal) - np.log10(noise)), np.inf)


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
        return float(decibels(self.signal, self.noise))
