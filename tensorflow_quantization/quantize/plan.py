"""`QuantizationPlan`: for each layer, what is quantized and the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.scheme import MAX_BITS
from tensorflow_quantization.targets import MatmulOperand, Placement
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.text.tables import html_summary
from tensorflow_quantization.wrappers import BaseQuantizeWrapper


@dataclass(frozen=True)
class LayerPlan:
    """The decision on one layer, operation or model input.

    Attributes:
        path: the layer's name with the names of the nested models around it: "backbone/conv1".
        class_name: the class name of the layer; "InputLayer" for a model input.
        reason: why the layer is quantized or not.
        placement: which quantizers the layer has.
        activation_scheme: the integers of inputs and output.
        weight_scheme: the integers of kernels.
        factor_scheme: the integers of operands of a matrix product of two activations.
        output_bits: bits of the output where its readers decide on them; `None`: as `activation_scheme`.
        wrapper: the wrapper class to use; `None`: the layer is not wrapped.
        target: the name of the target, "onnxruntime" for example.
        bias_input: the layer whose quantizer sets the scale of the input, as a path within the model that directly
            holds this layer. `None` if this layer quantizes its input itself, or if no single quantizer sets the scale.
        normalization: the name, in the quantized model, of the BatchNormalization that is folded into the kernel.
    """

    path: str
    class_name: str
    reason: Reason = field(default=Reason(ReasonCode.UNKNOWN, ""))
    placement: Placement = field(default=Placement())
    activation_scheme: QuantizationScheme = field(default=QuantizationScheme(), repr=False)
    weight_scheme: QuantizationScheme = field(default=QuantizationScheme(), repr=False)
    factor_scheme: QuantizationScheme = field(default=QuantizationScheme(), repr=False)
    output_bits: int | None = field(default=None, repr=False)
    wrapper: type[BaseQuantizeWrapper] | None = field(default=None, repr=False)
    target: str | None = None
    bias_input: str | None = field(default=None, repr=False)
    bias_inputs: tuple[str | None, ...] = field(default=(), repr=False)
    normalization: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def output_scheme(self) -> QuantizationScheme:
        """The integers of the output, or of the activation's output where the activation is a separate layer."""
        scheme, operand = self.activation_scheme, self.placement.matmul_operand
        if operand is MatmulOperand.SIGNED:
            scheme = self.factor_scheme
        elif operand is MatmulOperand.NON_NEGATIVE:
            scheme = replace(scheme, symmetric=True)
        if self.output_bits is not None:
            scheme = replace(scheme, bits=self.output_bits)
        return scheme if operand is not None else _fixed(scheme, self.placement.fixed_output)

    @property
    def gate_scheme(self) -> QuantizationScheme:
        """The integers of a gate."""
        return _fixed(self.activation_scheme, self.placement.fixed_gate)

    @property
    def bits(self) -> set[int]:
        """The bits of all quantizers of the layer."""
        placement, found = self.placement, set()
        if placement.weights:
            found.add(self.weight_scheme.bits)
        if placement.output:
            found.add(self.output_scheme.bits)
        if placement.inputs or placement.pre_activation or placement.gate or placement.pointwise_input:
            found.add(self.activation_scheme.bits)
        if placement.inner_matmuls or placement.projections:
            found |= {self.activation_scheme.bits, self.factor_scheme.bits}
        return found

    @property
    def quantized(self) -> bool:
        return bool(self.placement)

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.placement.inputs

    @property
    def weights(self) -> bool:
        return self.placement.weights

    @property
    def output(self) -> bool:
        return self.placement.output

    @property
    def _what(self) -> str:
        """What is quantized, in words."""
        what = [f"input {list(self.inputs)}"] * bool(self.inputs) + ["weights"] * self.weights
        what += ["products"] * self.placement.inner_matmuls + ["projections"] * self.placement.projections
        what += ["output"] * (self.output or self.placement.pre_activation)
        return " and ".join(what) or "float"

    def __str__(self) -> str:
        return f"{self.path} ({self.class_name}): {self._what}; {self.reason}"


def _fixed(scheme: QuantizationScheme, parameters: tuple[float, int] | None) -> QuantizationScheme:
    # The runtime's demand holds for its own integers; with fewer bits the range decides.
    return replace(scheme, fixed=parameters) if scheme.bits >= MAX_BITS else scheme


@dataclass(frozen=True)
class QuantizationPlan:
    """The decisions on a model by path: its inputs first, then layers and operations in the order of their calls."""

    layers: dict[str, LayerPlan]

    def __iter__(self) -> Iterator[LayerPlan]:
        return iter(self.layers.values())

    def __getitem__(self, path: str) -> LayerPlan:
        return self.layers[path]

    def __str__(self) -> str:
        return "\n".join(str(layer) for layer in self)

    def _repr_html_(self) -> str:
        head = f"{sum(layer.quantized for layer in self)} of {len(self.layers)} layers quantized"
        rows = [(layer.path, layer.class_name, layer._what, layer.reason) for layer in self]
        return html_summary(head, ("layer", "class", "quantized", "why"), rows)

    @property
    def quantizes(self) -> bool:
        """Whether anything is quantized."""
        return any(layer.quantized for layer in self)

    def merged(self, inside: Sequence[LayerPlan], path: str, class_name: str, reason: Reason) -> QuantizationPlan:
        """The plan with one decision on a block, to leave it float, instead of decisions on the layers inside it.

        Args:
            inside: the decisions on the layers of the block.
            path, class_name: of the block.
            reason: why the block stays float.
        """
        parts = {layer.path for layer in inside}
        whole = replace(inside[0], path=path, class_name=class_name, reason=reason, placement=Placement(), wrapper=None)
        layers = [whole if layer.path in parts else layer for layer in self]
        return QuantizationPlan({layer.path: layer for layer in layers})
