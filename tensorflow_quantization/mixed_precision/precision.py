"""`Precision`: the bits of one layer, or float; and the `QuantizationSpec` that gives each layer its own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.weights import variable_of
from tensorflow_quantization.noise.alone import quantized_calls
from tensorflow_quantization.quantize import QuantizationSpec
from tensorflow_quantization.quantizers.scheme import check_bits
from tensorflow_quantization.wrappers import wrappers_in

#: Bits of a weight of a layer in float.
_FLOAT_BITS = 32


@dataclass(frozen=True)
class Precision:
    """The bits of one layer. It prints as "W4A8", or "float".

    Examples:
        >>> str(Precision(4, 8)), str(FLOAT), Precision(4, 8).bytes(1000)
        ('W4A8', 'float', 500)

    Attributes:
        weight_bits, activation_bits: int, 2 to 8; `None` for both: float.
    """

    weight_bits: int | None
    activation_bits: int | None

    def bytes(self, weights: int) -> int:
        """Returns the bytes of so many weights, two of 4 bits in one byte."""
        return -(-weights * (self.weight_bits or _FLOAT_BITS) // 8)

    def as_arguments(self) -> dict[str, Any]:
        """Returns the bits as arguments of `quantize_model`."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "float" if self.weight_bits is None else f"W{self.weight_bits}A{self.activation_bits}"


FLOAT = Precision(None, None)


def precisions(weight_bits: int | Iterable[int], activation_bits: int | Iterable[int]) -> list[Precision]:
    """Returns each combination once, most bits first.

    Raises:
        TypeError, ValueError: a number of bits is no int, or not in 2 to 8; or there is none.
    """
    columns = []
    for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        chosen = {check_bits(b, name) for b in (bits if isinstance(bits, Iterable) else [bits])}
        if not chosen:
            raise ValueError(f"{name} is empty. Pass at least one number of bits, such as {name}=(8,).")
        columns.append(sorted(chosen, reverse=True))
    return [Precision(*pair) for pair in itertools.product(*columns)]


def spec_of(chosen: Mapping[str, Precision], base: QuantizationSpec | None = None) -> QuantizationSpec:
    """Returns a spec with the precision of each layer.

    Args:
        chosen: the precisions by the paths of the layers.
        base: further entries, for other layers; default none.
    """
    spec = base.copy() if base is not None else QuantizationSpec()
    for path, precision in chosen.items():
        quantized = precision != FLOAT
        spec.add(
            path,
            quantize_input=quantized,
            quantize_weight=quantized,
            weight_bits=precision.weight_bits,
            activation_bits=precision.activation_bits,
        )
    return spec


def bytes_of_weights(model: keras.Model, quantized: keras.Model) -> int:
    """Returns the bytes of all weights: quantized weights in their bits, two of 4 bits in one byte, others in float.

    Args:
        model: the float model.
        quantized: its quantized model.
    """
    counts: dict[int | None, int] = {None: sum(int(np.prod(v.shape)) for v in model.variables)}
    for call in quantized_calls(LayerGraph.trace(quantized).flatten()).values():
        for wrapper in wrappers_in(call.operation):
            for name, quantizer in wrapper.weight_quantizers.items():
                count = int(np.prod(variable_of(wrapper.layer, name).shape))
                counts[None] -= count
                counts[quantizer.scheme.bits] = counts.get(quantizer.scheme.bits, 0) + count
    return sum(Precision(bits, bits).bytes(count) for bits, count in counts.items())
