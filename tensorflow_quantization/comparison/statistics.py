"""What two tensors differ in, by channel, and how a quantizer's integers are used; batches are added up.

Ratios of powers are in decibels: 10 * log10(signal / noise).
"""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.noise.signal_to_noise import decibels
from tensorflow_quantization.quantizers import ActivationQuantizer, numerics

Array = np.ndarray


def by_channel(x: Array, axis: int | None) -> Array:
    """Returns a tensor as (values, channels); with `None` for the axis, as (values, 1)."""
    if not x.ndim or axis is None:
        return x.reshape(-1, 1)
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


class Range:
    """The least and the greatest value of each channel.

    Attributes:
        low, high: arrays (channels,); empty before the first `update`.
    """

    def __init__(self) -> None:
        self.low = self.high = np.zeros(0)

    def update(self, x: Array) -> None:
        """Adds a batch (values, channels)."""
        low, high = x.min(axis=0), x.max(axis=0)
        first = not self.low.size
        self.low = low if first else np.minimum(self.low, low)
        self.high = high if first else np.maximum(self.high, high)

    @property
    def constant(self) -> Array:
        """Which channels always have the same value, bool (channels,)."""
        return self.low == self.high

    @property
    def magnitude(self) -> Array:
        return np.maximum(np.abs(self.low), np.abs(self.high))


class Difference:
    """How tensors differ from their exact values.

    Args:
        axis: the channel axis; `None`: all channels are one.
    """

    def __init__(self, axis: int | None):
        self.axis = axis
        self.exact, self.other = Range(), Range()
        self._count = 0
        self._signal = self._power = self._product = self._noise = self._error = np.zeros(())

    def update(self, exact: Array, other: Array) -> None:
        """Adds a batch: the exact values and the others, in one shape."""
        exact, other = (by_channel(x, self.axis) for x in (exact, other))
        if not exact.size:
            return
        error = other - exact
        self.exact.update(exact)
        self.other.update(other)
        self._count += len(exact)
        self._signal = self._signal + _dot(exact, exact)
        self._power = self._power + _dot(other, other)
        self._product = self._product + _dot(exact, other)
        self._noise = self._noise + _dot(error, error)
        self._error = self._error + error.sum(axis=0, dtype=np.float64)

    @property
    def noise(self) -> Array:
        """The power of the error of each channel, float64 (channels,)."""
        return self._noise

    @property
    def snr(self) -> float:
        """The signal-to-noise ratio of the whole tensor in dB."""
        return float(decibels(self._signal.sum(), self._noise.sum()))

    @property
    def channel_snr(self) -> Array:
        """The signal-to-noise ratio of each channel in dB."""
        return decibels(self._signal, self._noise)

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the two tensors; 1 if both are zero."""
        norms = np.sqrt(self._signal.sum() * self._power.sum())
        return float(self._product.sum() / norms) if norms > 0 else float(self._noise.sum() == 0)

    @property
    def bias(self) -> float:
        """The share of the error's power that is a constant shift of channels, from 0 to 1."""
        noise = self._noise.sum()
        return float((self._error**2).sum() / self._count / noise) if noise > 0 else 0.0


class Usage:
    """What an activation quantizer gets in the float model, and which of its integers it uses.

    Args:
        quantizer: the quantizer.
        axis: the channel axis of its tensor; `None`: all channels are one.

    Attributes:
        values: the `Range` of each channel.
    """

    def __init__(self, quantizer: ActivationQuantizer, axis: int | None):
        self.quantizer, self.axis, self.values = quantizer, axis, Range()
        self._count = self._saturated = 0
        self._lowest, self._highest = np.inf, -np.inf
        self._clipping = self._rounding = 0.0

    def update(self, x: Array) -> None:
        """Adds a batch of what the quantizer gets."""
        if not x.size:
            return
        scheme = self.quantizer.scheme
        scale, zero_point = (p.astype(np.float32) for p in self.quantizer.parameters())
        limited = numerics.quantize(x, scale, zero_point, scheme, np)
        integers = numerics.nearest(x / scale, scheme, np) + zero_point
        outside = integers != limited
        squares = (numerics.dequantize(limited, scale, zero_point) - x) ** 2
        self.values.update(by_channel(x, self.axis))
        self._count += x.size
        self._saturated += int(outside.sum())
        self._clipping += float(squares[outside].sum(dtype=np.float64))
        self._rounding += float(squares[~outside].sum(dtype=np.float64))
        self._lowest, self._highest = min(self._lowest, limited.min()), max(self._highest, limited.max())

    @property
    def saturation(self) -> float:
        """The share of values that the quantizer clips."""
        return self._saturated / self._count if self._count else 0.0

    @property
    def dead_range(self) -> float:
        """The share of the integers, from the lowest to the highest, that lie outside the least and greatest in use."""
        levels = self.quantizer.scheme.levels
        used = (levels >= self._lowest) & (levels <= self._highest)
        return float(1 - used.mean()) if self._count else 0.0

    @property
    def clips(self) -> bool:
        """Whether clipping causes more of the error than rounding does."""
        return self._clipping > self._rounding


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("nc,nc->c", a, b, dtype=np.float64)
