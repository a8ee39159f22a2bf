"""`QuantizationScheme`: the integers, or FP8 numbers, that represent a tensor's values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import ml_dtypes
import numpy as np

MIN_BITS, MAX_BITS = 2, 8
#: The bits of activations that are almost floats, beside weights of 8 bits.
WIDE_BITS = 16
#: The bits of weights in blocks, and the least size of a block: what the runtimes have kernels for.
BLOCK_BITS, MIN_BLOCK = (4, 8), 16
#: FP8: a sign, 4 bits of exponent and 3 of fraction, without infinities (arXiv:2209.05433, table 1).
FLOAT8 = "float8_e4m3fn"
#: The greatest FP8 number.
FLOAT8_MAX = 448


def check_bits(bits: int, what: str, others: str = "") -> int:
    """Returns `bits` unchanged.

    Args:
        bits: int, 2 to 8.
        what: the name of the argument, for the error message.
        others: what else the argument may be, as the message says it; default "".

    Raises:
        ValueError: `bits` is no integer from 2 to 8.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"{what} must be an integer from {MIN_BITS} to {MAX_BITS}{others}, got {bits!r}.")
    return bits


def check_block_size(size: int, what: str) -> int:
    """Returns `size` unchanged.

    Args:
        size: int, a power of two of at least 16.
        what: the name of the argument, for the error message.

    Raises:
        ValueError: `size` is something else.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < MIN_BLOCK or size & (size - 1):
        raise ValueError(f"{what} must be a power of two of at least {MIN_BLOCK}, such as 32 or 128, got {size!r}.")
    return size


@dataclass(frozen=True)
class QuantizationScheme:
    """Describes the integers of a quantizer: real value = (integer - zero point) * scale.

    The scale is also the step: the real distance between two neighbouring integers (arXiv:1712.05877, section 2.1).

    Examples:
        >>> scheme = QuantizationScheme(bits=4, signed=False, symmetric=False, narrow_range=False)
        >>> scheme.qmin, scheme.qmax, scheme.dtype
        (0, 15, 'uint8')

    Attributes:
        bits: int, 2 to 8, or 16; default 8.
        signed: bool; `True` (default): the lowest integer is -2**(bits-1), and files store int8, or int16. `False`: the
            lowest integer is 0, and files store uint8, or uint16.
        symmetric: bool; `True` (default): the zero point is 0 for signed integers, and `qmin` for unsigned integers,
            which then suit only values that are never negative. `False` (asymmetric): the zero point follows the range.
        narrow_range: bool; `True` (default) leaves out the lowest integer: 8-bit signed integers are -127 to 127.
        axis: int, tuple of ints, or `None`. Per-channel: one scale for each index of these axes of the tensor; a
            negative axis counts from the end. `None` (default) is per-tensor: one scale.
        fixed: (scale, zero point) that a runtime requires whatever the range of the values, or `None` (default).
        floating: bool; `True`: the numbers of FP8 (E4M3, arXiv:2209.05433) take the place of the integers, -448 to 448,
            and the scale is the greatest magnitude / 448. They are signed and symmetric and have 8 bits, and a number
            has 4 significant bits down to 2**-6. `False` (default): integers.
        block_size: of a weight: as many consecutive inputs of an output channel share a scale; the last block may be
            shorter. A power of two of at least 16, for symmetric, signed integers of 4 or 8 bits. `None` (default): all
            inputs share it.

    Raises:
        ValueError: `bits` is no integer from 2 to 8 and not 16, `floating` and not 8 bits, signed and symmetric, or
            blocks of a wrong size or of other integers.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    narrow_range: bool = True
    axis: tuple[int, ...] | None = None
    fixed: tuple[float, int] | None = None
    floating: bool = False
    block_size: int | None = None

    def __post_init__(self):
        if self.bits != WIDE_BITS:
            check_bits(self.bits, "bits")
        if self.floating and not (self.bits == MAX_BITS and self.signed and self.symmetric and self.fixed is None):
            raise ValueError(
                f"The numbers of {FLOAT8} have {MAX_BITS} bits, are signed and symmetric and have no fixed scale: with "
                f"floating=True, leave bits, signed, symmetric and fixed out. Got {self.get_config()}."
            )
        if self.block_size is not None:
            check_block_size(self.block_size, "block_size")
            plain = self.signed and self.symmetric and not self.floating and self.fixed is None
            if not plain or self.bits not in BLOCK_BITS:
                raise ValueError(
                    f"Weights in blocks are signed, symmetric integers of {' or '.join(map(str, BLOCK_BITS))} bits. "
                    f"Pass weight_bits=4, or leave block_size out. Got {self.get_config()}."
                )
        if self.axis is not None:
            axis = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
            object.__setattr__(self, "axis", axis)
        if self.fixed is not None:
            object.__setattr__(self, "fixed", tuple(self.fixed))  # JSON turns the tuple into a list

    @property
    def qmin(self) -> int:
        """The lowest integer, or FP8 number."""
        if self.floating:
            return -FLOAT8_MAX
        lowest = -(2 ** (self.bits - 1)) if self.signed else 0
        return lowest + 1 if self.narrow_range else lowest

    @property
    def qmax(self) -> int:
        """The highest integer, or FP8 number."""
        if self.floating:
            return FLOAT8_MAX
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def zero_point(self) -> int | None:
        """The zero point of any range; `None`: it follows the range."""
        if self.fixed is not None:
            return self.fixed[1]
        if not self.symmetric:
            return None
        return 0 if self.signed else self.qmin

    @property
    def dtype(self) -> str:
        """The dtype in a file: "int8", "uint8", "int16", "uint16" or "float8_e4m3fn"."""
        if self.floating:
            return FLOAT8
        return f"{'int' if self.signed else 'uint'}{max(self.bits, MAX_BITS)}"

    @property
    def saturates(self) -> bool:
        """Whether `qmin` and `qmax` are the limits of `dtype`, so that saturating to `dtype` clips correctly."""
        return self.floating or (self.bits >= MAX_BITS and not self.narrow_range)

    @property
    def levels(self) -> np.ndarray:
        """All integers, or FP8 numbers, in ascending order: a float64 array."""
        if not self.floating:
            return np.arange(self.qmin, self.qmax + 1.0)
        numbers = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
        return np.unique(numbers[np.isfinite(numbers)])  # +0 and -0 are equal

    @property
    def name(self) -> str:
        """The integers in words: "int8", "uint4", or "float8_e4m3fn"."""
        return self.dtype if self.floating else f"{self.dtype.rstrip('0123456789')}{self.bits}"

    def get_config(self) -> dict:
        """Returns the attributes as a dict that JSON can hold; `from_config` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict | QuantizationScheme) -> QuantizationScheme:
        """Returns the scheme of a `get_config` dict. A `QuantizationScheme` is returned unchanged."""
        return cls(**config) if isinstance(config, dict) else config

    def __str__(self) -> str:
        return f"{self.name} {'symmetric' if self.symmetric else 'affine'}"
