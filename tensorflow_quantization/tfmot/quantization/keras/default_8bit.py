"""`tfmot.quantization.keras.default_8bit`: the default scheme, 8-bit integers for LiteRT."""

from __future__ import annotations

from tensorflow_quantization.tfmot.missing import missing
from tensorflow_quantization.tfmot.quantization.keras.scheme import QuantizeScheme, check_per_axis

__all__ = ["Default8BitQuantizeScheme"]


class Default8BitQuantizeScheme(QuantizeScheme):
    """The 8-bit integers and the placement of `target="litert"`, the default of `quantize_apply`.

    Args:
        disable_per_axis: must be `False`, the default: weights are quantized per output channel.

    Raises:
        ValueError: `disable_per_axis` is set.
    """

    def __init__(self, disable_per_axis: bool = False):
        check_per_axis(type(self).__name__, disable_per_axis)
        super().__init__()


_PLACED = 'target="litert" places the quantizers; see tensorflow_quantization.describe'
__getattr__ = missing(
    __name__,
    {
        "Default8BitQuantizeLayoutTransform": _PLACED,
        "Default8BitQuantizeRegistry": _PLACED,
        "default_8bit_transforms": _PLACED,
    },
)
