"""`Target`: the integers of a runtime, and the rule that places its quantizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.scheme import BLOCK_BITS
from tensorflow_quantization.targets.reason import Reason, ReasonCode


class MatmulOperand(Enum):
    """The integers of an operand of a matrix product of two activations."""

    #: The scheme `Target.matmul_operands`.
    SIGNED = "signed"
    #: The scheme of activations, made symmetric, for a left operand that is never negative.
    NON_NEGATIVE = "non_negative"


@dataclass(frozen=True)
class Placement:
    """The quantizers of one layer, operation or model input. It is false if there are none.

    Examples:
        >>> bool(Placement(inputs=(0,), weights=True)), bool(Placement())
        (True, False)

    Attributes:
        inputs: the indices of the inputs that have a separate quantizer, counted from 0; none by default.
        weights: quantize the kernels; `False` by default.
        output: one quantizer on the output, shared by all its readers; `False` by default.
        pre_activation: one quantizer between the layer and its `activation` argument, which becomes a separate layer;
            `False` by default.
        pointwise_input: in a separable convolution, quantize the tensor between the depthwise and pointwise kernels;
            `False` by default.
        same_scale: quantize input and output with the same scale and zero point; `False` by default.
        inner_matmuls: in attention, quantize the operands of the matrix products of activations; `False` by default.
        projections: in attention, quantize what the projections read and write, and not the probabilities; `False` by
            default.
        matmul_operand: the integers of an output that is an operand of a matrix product of two activations; `None`
            (default): the integers of activations.
        gate: in an activation with a gate, such as SiLU = x * sigmoid(x), quantize the gate; `False` by default.
        fixed_output: the (scale, zero point) that the runtime demands for the output, or for the output of the
            `activation` argument; `None` (default): from the range.
        fixed_gate: the same for the gate.
        reason: why there are these quantizers, or why there are none and how to add them. A `str` becomes a `Reason`
            with the code `DEFAULT`, or `OFF_BY_DEFAULT` without quantizers.
    """

    inputs: tuple[int, ...] = ()
    weights: bool = False
    output: bool = False
    pre_activation: bool = False
    pointwise_input: bool = False
    same_scale: bool = False
    inner_matmuls: bool = False
    projections: bool = False
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
        return bool(self.inputs) or self.weights or self.output or self.inner_matmuls or self.projections


#: Whether the spec or a case turns the quantization of a call's inputs off.
SwitchedOff = Callable[[Call], bool]
#: Returns the placements of a whole flat graph, by path of a call or name of a model input. Calls that are switched off
#: are left out.
PlacementRule = Callable[[LayerGraph, SwitchedOff], dict[str, Placement]]


@dataclass(frozen=True)
class BlockRule:
    """The weights in blocks that a runtime takes: blocks of inputs that share a scale, for each output channel.

    Attributes:
        bits: the numbers of bits; default 4 and 8.
        partial: whether the last block may be shorter than the others; `False` by default.
    """

    bits: frozenset[int] = frozenset(BLOCK_BITS)
    partial: bool = False


@dataclass(frozen=True)
class Target:
    """The integers of a runtime, and the rule that places its quantizers.

    Examples:
        >>> from dataclasses import replace
        >>> from tensorflow_quantization.targets import find_target
        >>> target = replace(find_target("onnxruntime"), name="four_bits", weights=QuantizationScheme(bits=4))
        >>> print(describe(quantize_model(model, target=target))["conv"].quantizers[0])
        kernel int4 per channel (axis -1)

    Attributes:
        name: the name of the target; the quantized model stores it.
        place: the placement rule: a function of a flat `LayerGraph` and of a function that says whether a call is
            switched off. It returns a dict of `Placement` by path of a call or name of a model input.
        activations: the `QuantizationScheme` of activations; `None` (default): from the package's `G_*` globals.
        weights: the `QuantizationScheme` of weights; `None` (default): from the `G_*` globals. The layer sets its
            channel axis.
        matmul_operands: the `QuantizationScheme` of operands of a matrix product of two activations; `None` (default):
            as `activations`. A placement may choose `activations`, made symmetric, for a left operand that is never
            negative.
        joins_with_one_scale: if a spec names a concatenation, its output is quantized, and so all its inputs have one
            scale; `False` (default): each input has a quantizer.
        bits: the numbers of bits that the runtime computes with; `None` (default): 2 to 8.
        wide: the same runtime with activations of 16 bits: a target with its own placement and schemes, which
            `quantize_model(activation_bits=16)` takes. `None` (default): it does not compute with them.
        float8: the same runtime in FP8, E4M3: a target with its own placement and schemes with `floating=True`, which
            `quantize_model(dtype="float8_e4m3fn")` takes. `None` (default): it does not compute in FP8.
        learned_weights: whether weights may have learned steps; `True` by default.
        blocks: the weights in blocks that the runtime takes, which `quantize_model(block_size=...)` asks for; `None`
            (default): none.
        recurrent_weights: the runtime loads recurrent layers whose weights are integers; `False` (default): a spec that
            names such a layer quantizes its input only.
        float32_only: the title of the runtime if it quantizes models in float32 only; `None` (default): also models
            that compute in other float dtypes, or take such inputs.
        why_not: a function of a graph and a call that returns the `Reason` why `place` leaves the call out; `None`
            (default): the planner finds a reason.
    """

    name: str
    place: PlacementRule
    activations: QuantizationScheme | None = None
    weights: QuantizationScheme | None = None
    matmul_operands: QuantizationScheme | None = None
    why_not: Callable[[LayerGraph, Call], Reason] | None = None
    joins_with_one_scale: bool = False
    bits: frozenset[int] | None = None
    recurrent_weights: bool = False
    float8: Target | None = None
    wide: Target | None = None
    learned_weights: bool = True
    blocks: BlockRule | None = None
    float32_only: str | None = None
