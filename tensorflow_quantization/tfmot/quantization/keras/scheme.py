"""`QuantizeScheme`: the runtime and the bits that `quantize_apply` quantizes for."""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow_quantization.targets import Target
from tensorflow_quantization.targets.litert import LITERT


@dataclass(frozen=True)
class QuantizeScheme:
    """What `quantize_apply` quantizes for. TFMOT's schemes hold transforms and a registry; here a target has both.

    Examples:
        >>> from tensorflow_quantization.tfmot import quantization
        >>> quantization.keras.default_8bit.Default8BitQuantizeScheme().target.name
        'litert'

    Attributes:
        target: the `Target`; default LiteRT.
        weight_bits, activation_bits: 2 to 8; `None` (default): as the target says.
    """

    target: Target = LITERT
    weight_bits: int | None = None
    activation_bits: int | None = None


def check_per_axis(scheme: str, disable_per_axis: bool) -> None:
    """Raises: ValueError: `disable_per_axis` is set."""
    if disable_per_axis:
        raise ValueError(
            f"{scheme} got disable_per_axis=True, but weights are quantized per output channel here. Leave it out, or "
            "annotate the layers with a QuantizeConfig whose quantizers have per_axis=False."
        )
