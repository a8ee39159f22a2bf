"""`QuantizationScheme`: the integers that represent a tensor's values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

MIN_BITS, MAX_BITS = 2, 8


def check_bits(bits: int, what: str) -> int:
    """Returns `bits` unchanged.

    Args:
        bits: int, 2 to 8.
        what: the name of the argument, for the error message.

    Raises:
        ValueError: `bits` is no integer from 2 to 8.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"{what} must be an integer from {MIN_BITS} to {MAX_BITS}, got {bits!r}.")
    return bits


@dataclass(frozen=True)
class QuantizationScheme:
    """Describes the integers of a uniform quantizer: real value = (integer - zero point) * scale.

    The scale is also the step: the real distance between two neighbouring integers (arXiv:1712.05877, section 2.1).

    Examples:
        >>> scheme = QuantizationScheme(bits=4, signed=False, symmetric=False, narrow_range=False)
        >>> scheme.qmin, scheme.qmax, scheme.dtype
        (0, 15, 'uint8')

    Attributes:
        bits: int, 2 to 8; default 8.
        signed: bool; `True` (default): the lowest integer is -2**(bits-1), and files store int8. `False`: the lowest
            integer is 0, and files store uint8.
        symmetric: bool; `True` (default): the zero point is 0 for signed integers, and `qmin` for unsigned integers,
            which then suit only values that are never negative. `False` (asymmetric): the zero point follows the range.
        narrow_range: bool; `True` (default) leaves out the lowest integer: 8-bit signed integers are -127 to 127.
        axis: int, tuple of ints, or `None`. Per-channel: one scale for each index of these axes of the tensor; a
            negative axis counts from the end. `None` (default) is per-tensor: one scale.
        fixed: (scale, zero point) that a runtime requires whatever the range of the values, or `None` (default).

    Raises:
        ValueError: `bits` is no integer from 2 to 8.
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
            object.__setattr__(self, "fixed", tuple(self.fixed))  # JSON turns the tuple into a list

    @property
    def qmin(self) -> int:
        """The lowest integer."""
        lowest = -(2 ** (self.bits - 1)) if self.signed else 0
        return lowest + 1 if self.narrow_range else lowest

    @property
    def qmax(self) -> int:
        """The highest integer."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> str:
        """The dtype of the integers in a file: "int8" or "uint8"."""
        return "int8" if self.signed else "uint8"

    @property
    def saturates(self) -> bool:
        """Whether `qmin` and `qmax` are the limits of `dtype`, so that saturating to `dtype` clips correctly."""
        return self.bits == 8 and not self.narrow_range

    def get_config(self) -> dict:
        """Returns the attributes as a dict that JSON can hold; `from_config` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict | QuantizationScheme) -> QuantizationScheme:
        """Returns the scheme of a `get_config` dict. A `QuantizationScheme` is returned unchanged."""
        return cls(**config) if isinstance(config, dict) else config

    def __str__(self) -> str:
        return f"{self.dtype.rstrip('8')}{self.bits} {'symmetric' if self.symmetric else 'affine'}"
