"""`QuantizationScheme`: which integers stand for a tensor's values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

MIN_BITS, MAX_BITS = 2, 8


def check_bits(bits: int, what: str) -> int:
    """`bits` itself if it is an integer from 2 to 8; `what` names it in the error.

    Raises:
        ValueError: it is not.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"{what} must be an integer from {MIN_BITS} to {MAX_BITS}, got {bits!r}.")
    return bits


@dataclass(frozen=True)
class QuantizationScheme:
    """The integers of a uniform quantizer, real value = (integer - zero point) * scale.

    Example:
        >>> scheme = QuantizationScheme(bits=4, signed=False, symmetric=False, narrow_range=False)
        >>> scheme.qmin, scheme.qmax, scheme.dtype
        (0, 15, 'uint8')

    Attributes:
        bits: 2 to 8.
        signed: integers from -2**(bits-1), else from 0. Stored as int8 or uint8.
        symmetric: the zero point is fixed: 0 if signed, and for unsigned integers their minimum, which suits only
            values that are never negative. Otherwise it follows the range (affine quantization).
        narrow_range: leave out the lowest integer, so that signed integers are -127 to 127 for 8 bits.
        axis: one scale per index of these axes of the tensor (negative counts from the end); `None`: one per tensor.
        fixed: (scale, zero point) where a runtime demands certain ones, whatever the range of the values.

    Raises:
        ValueError: `bits` is out of range.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    narrow_range: bool = True
    axis: tuple[int, ...] | None = None
    fixed: tuple[float, int] | None = None

    def __post_init__(self):
        check_bits(self.bits, "bits")
        if self.axis is not None:
            axis = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
            object.__setattr__(self, "axis", axis)
        if self.fixed is not None:
            object.__setattr__(self, "fixed", tuple(self.fixed))  # a list, once saved and loaded

    @property
    def qmin(self) -> int:
        lowest = -(2 ** (self.bits - 1)) if self.signed else 0
        return lowest + 1 if self.narrow_range else lowest

    @property
    def qmax(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> str:
        """The integer type in a file: "int8" or "uint8"."""
        return "int8" if self.signed else "uint8"

    @property
    def saturates(self) -> bool:
        """Whether the integer type's own limits are this scheme's, so that saturation alone clips correctly."""
        return self.bits == 8 and not self.narrow_range

    def get_config(self) -> dict:
        """JSON-ready; the inverse is `from_config`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict | QuantizationScheme) -> QuantizationScheme:
        """The scheme of a `get_config` dict; a scheme itself passes through."""
        return cls(**config) if isinstance(config, dict) else config

    def __str__(self) -> str:
        return f"{self.dtype.rstrip('8')}{self.bits} {'symmetric' if self.symmetric else 'affine'}"
