"""`SignalToNoise`: how far a quantized model's outputs are from the float model's, in `decibels`."""

from __future__ import annotations

from collections import defaultdict
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
    """Sums up signal and noise batch by batch, of each output alone: their units may differ.

    Examples:
        >>> ratio = SignalToNoise()
        >>> ratio.update(np.array([10.0, 10.0]), np.array([11.0, 9.0]))
        >>> round(ratio.decibels, 3)
        20.0
    """

    def __init__(self) -> None:
        self._signal: dict[int, float] = defaultdict(float)
        self._noise: dict[int, float] = defaultdict(float)

    def update(self, expected: np.ndarray, got: np.ndarray, output: int = 0) -> None:
        """Adds a batch: what the float model returns, and what the quantized model returns instead.

        Args:
            expected, got: arrays of the same shape.
            output: int, of which output. Default: the only one.
        """
        expected = np.asarray(expected, np.float64)
        self._signal[output] += float((expected**2).sum())
        self._noise[output] += float(((expected - np.asarray(got, np.float64)) ** 2).sum())

    @property
    def noise(self) -> float:
        """The noise in units of the signal, the mean over all outputs; noise on an output of zeros counts as 1."""
        pairs = [(self._noise[key], signal) for key, signal in self._signal.items()]
        ratios = [noise / signal if signal > 0 else float(noise > 0) for noise, signal in pairs]
        return float(np.mean(ratios)) if ratios else 0.0

    @property
    def decibels(self) -> float:
        return float(decibels(1.0, self.noise))
