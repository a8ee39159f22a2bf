"""`tfmot.quantization.keras.experimental.default_n_bit`: a scheme with other numbers of bits, for experiments."""

from __future__ import annotations

from dataclasses import replace

from tensorflow_quantization.quantizers.scheme import check_bits
from tensorflow_quantization.targets import find_target
from tensorflow_quantization.tfmot.missing import missing
from tensorflow_quantization.tfmot.quantization.keras.scheme import QuantizeScheme, check_per_axis

__all__ = ["DefaultNBitQuantizeScheme"]


class DefaultNBitQuantizeScheme(QuantizeScheme):
    """The placement of `target="litert"` with 2 to 8 bits. `export_litert` writes models with 8 bits only.

    Args:
        disable_per_axis: must be `False`, the default: weights are quantized per output channel.
        num_bits_weight, num_bits_activation: 2 to 8; default 8.

    Raises:
        ValueError: `disable_per_axis` is set, or bits are out of range.
    """

    def __init__(self, disable_per_axis: bool = False, num_bits_weight: int = 8, num_bits_activation: int = 8):
        check_per_axis(type(self).__name__, disable_per_axis)
        super().__init__(
            replace(find_target("litert"), bits=None),
            check_bits(num_bits_weight, "num_bits_weight"),
            check_bits(num_bits_activation, "num_bits_activation"),
        )


_PLACED = 'target="litert" places the quantizers; see tensorflow_quantization.describe'
__getattr__ = missing(
    __name__,
    {
        "DefaultNBitQuantizeLayoutTransform": _PLACED,
        "DefaultNBitQuantizeRegistry": "Default8BitQuantizeRegistry returns configs; change the bits of its quantizers",
        "default_n_bit_transforms": _PLACED,
    },
)
