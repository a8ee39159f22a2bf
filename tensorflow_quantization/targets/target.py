"""`Target`: what a runtime wants, as data and one placement rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantizers import QuantizationScheme


@dataclass(frozen=True)
class Placement:
    """Where a target puts quantizers around one layer, operation or model input.

    Attributes:
        inputs: the indices of the inputs with a quantizer of their own.
        weights: quantize the kernels.
        output: one quantizer on the output, for all that read it.
        before_activation: the output quantizer goes between the layer and its `activation` argument, which becomes a
            layer of its own.
        inner: of a separable convolution: quantize what flows between its two kernels.
        one_scale: quantize the output too, with the range of the input.
        products: of a layer that multiplies activations with one another, attention: quantize them.
        factor: the output is a factor of a product of two activations, whose integers a runtime may want otherwise:
            "any", or "positive" if it is never negative and the left one of the two.
        gate: of an activation that is a product with a gate (SiLU is x * sigmoid(x)): quantize the gate too.
        fixed_output, fixed_gate: the scale and zero point that the runtime demands of output and gate; `None`: by
            range. The output is that of the activation, where there is one.
        reason: why, or where nothing is quantized, why not and what turns it on.
    """

    inputs: tuple[int, ...] = ()
    weights: bool = False
    output: bool = False
    before_activation: bool = False
    inner: bool = False
    one_scale: bool = False
    products: bool = False
    factor: Literal["", "any", "positive"] = ""
    gate: bool = False
    fixed_output: tuple[float, int] | None = None
    fixed_gate: tuple[float, int] | None = None
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.inputs) or self.weights or self.output or self.products


#: Decides on a whole graph: a placement a path of a call or name of a model input. It leaves out the calls that the
#: second argument, what the user switched off, is true of.
PlacementRule = Callable[[LayerGraph, Callable[[Call], bool]], dict[str, Placement]]


@dataclass(frozen=True)
class Target:
    """A runtime's wishes.

    Attributes:
        name: as the user writes it.
        place: where it wants quantizers.
        activations: the integers of activations; `None`: those of the package's `G_*` globals.
        weights: the integers of weights; the channel axis is the layer's.
        factors: the integers of what is multiplied with another activation; `None`: those of activations. The left
            factor, where it is never negative, has those of activations made symmetric.
        why_not: the reason why a call of the graph that `place` leaves out has no quantizers; `None`: it says nothing
            about them.
    """

    name: str
    place: PlacementRule
    activations: QuantizationScheme | None = None
    weights: QuantizationScheme | None = None
    factors: QuantizationScheme | None = None
    why_not: Callable[[LayerGraph, Call], str] | None = None
