"""`Target`: what a runtime wants, as data and one placement rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.reason import Reason, ReasonCode


class MatmulOperand(Enum):
    """The integers of an operand of a matrix product of two activations."""

    #: `Target.matmul_operands`.
    SIGNED = "signed"
    #: The integers of activations, made symmetric: of a left operand that is never negative.
    NON_NEGATIVE = "non_negative"


@dataclass(frozen=True)
class Placement:
    """Where a target puts quantizers around one layer, operation or model input.

    Attributes:
        inputs: the indices of the inputs with a quantizer of their own.
        weights: quantize the kernels.
        output: one quantizer on the output, for all that read it.
        pre_activation: the output quantizer goes between the layer and its `activation` argument, which becomes a layer
            of its own.
        pointwise_input: of a separable convolution: quantize what its depthwise kernel computes and its pointwise
            kernel reads.
        same_scale: quantize the output too, with the scale and zero point of the input.
        inner_matmuls: of attention: quantize the operands of the matrix products of activations within.
        matmul_operand: the output is an operand of a matrix product of two activations, with these integers; `None`:
            the output has the integers of activations.
        gate: of an activation that is a product with a gate (SiLU is x * sigmoid(x)): quantize the gate too.
        fixed_output, fixed_gate: the scale and zero point that the runtime demands of output and gate; `None`: by
            range. The output is the output of the activation, where there is one.
        reason: why, or where nothing is quantized, why not and what turns it on. A sentence alone becomes a `Reason`
            with the code `DEFAULT`, or `OFF_BY_DEFAULT`.
    """

    inputs: tuple[int, ...] = ()
    weights: bool = False
    output: bool = False
    pre_activation: bool = False
    pointwise_input: bool = False
    same_scale: bool = False
    inner_matmuls: bool = False
    matmul_operand: MatmulOperand | None = None
    gate: bool = False
    fixed_output: tuple[float, int] | None = None
    fixed_gate: tuple[float, int] | None = None
    reason: Reason | None = None

    def __post_init__(self):
        if isinstance(self.reason, str):
            code = ReasonCode.DEFAULT if self else ReasonCode.OFF_BY_DEFAULT
            object.__setattr__(self, "reason", Reason(code, self.reason) if self.reason else None)

    def __bool__(self) -> bool:
        return bool(self.inputs) or self.weights or self.output or self.inner_matmuls


#: Whether the user, or a case, wants the inputs of a call left alone.
SwitchedOff = Callable[[Call], bool]
#: Decides on a whole graph: a `Placement` by path of a call or name of a model input. Calls that are switched off are
#: left out.
PlacementRule = Callable[[LayerGraph, SwitchedOff], dict[str, Placement]]


@dataclass(frozen=True)
class Target:
    """A runtime's wishes.

    Attributes:
        name: as the user writes it.
        place: where it wants quantizers.
        activations: the integers of activations; `None`: from the package's `G_*` globals.
        weights: the integers of weights; the channel axis is the layer's.
        matmul_operands: the integers of operands of a matrix product of two activations; `None`: as of activations. A
            left operand that is never negative has the integers of activations, made symmetric.
        why_not: the reason why a call of the graph that `place` leaves out has no quantizers; `None`: it says nothing
            about them.
    """

    name: str
    place: PlacementRule
    activations: QuantizationScheme | None = None
    weights: QuantizationScheme | None = None
    matmul_operands: QuantizationScheme | None = None
    why_not: Callable[[LayerGraph, Call], Reason] | None = None
