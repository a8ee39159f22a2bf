"""`KernelRules`: what a runtime computes in integers, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorflow_quantization.model.activations import Activation, activation_of
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import NO_TRAITS, Trait, attends, is_one_of, multiplies_activations, traits


@dataclass(frozen=True)
class KernelRules:
    """What a runtime computes in integers, and what its kernels need for it.

    Classes are Keras' layers and operations by name; a subclass counts as its base.

    Attributes:
        weighted: classes of layers with a kernel of weights.
        unweighted: further classes of layers and operations.
        matmuls: of `Trait.ATTENDS` and `Trait.MULTIPLIES_TENSORS`, the matrix products of two activations that it
            computes in integers.
        fusion: what a kernel computes along with its product.
        gated: activations that it computes in integers if their gate is quantized too.
        activations: activations that are integer kernels of their own where no kernel before fuses them.
        constant_operands: sums and products with a constant are integer kernels too.
        float_only: why the runtime computes a layer or operation in floats, a clause, by class name.
        fixed_ranges: the scale and zero point that the runtime demands of the output of an activation.
        same_scale: classes whose input and output need the same scale and zero point.
        quantized_outputs: a kernel runs in integers only if its output, after what is fused, is quantized too.
        float_matmul_outputs: except that a matrix product writes floats where no integer kernel reads it.
        unrounded_sums: a convolution adds the other operand of a fused Add to its products before it rounds.
        float_residuals: a sum stays in floats where integers save nothing, see `steps.float_sums`.
        quantized_pooling: a convolution's output is quantized if a float layer reads it pooled: less to write and pool.
        rounding: classes whose kernels may round their output to integers unasked. They stay in floats where no
            quantizer says to which integers.
    """

    weighted: frozenset[str]
    unweighted: frozenset[str]
    matmuls: Trait = NO_TRAITS
    fusion: KernelFusion = field(default_factory=KernelFusion)
    gated: frozenset[Activation] = frozenset()
    activations: frozenset[Activation] = frozenset()
    constant_operands: bool = False
    float_only: Mapping[str, str] = field(default_factory=dict)
    fixed_ranges: Mapping[Activation, tuple[float, int]] = field(default_factory=dict)
    same_scale: frozenset[str] = frozenset()
    quantized_outputs: bool = False
    float_matmul_outputs: bool = False
    unrounded_sums: bool = False
    float_residuals: bool = False
    quantized_pooling: bool = False
    rounding: frozenset[str] = frozenset()

    def is_integer(self, call: Call) -> bool:
        """Whether a call is computed in integers if its tensors are quantized."""
        activation = activation_of(call.operation)
        if activation in self.gated:
            return call.is_layer
        if activation in self.activations or self.multiplies_activations(call):
            return True
        if not call.is_layer and Trait.MERGES in traits(call) and len(call.inputs) < 2:
            return self.constant_operands
        return is_one_of(call, self.weighted | self.unweighted)

    def multiplies_activations(self, call: Call) -> bool:
        """Whether a matrix product of activations, maybe within a layer, is computed in integers."""
        return self.attends(call) or (Trait.MULTIPLIES_TENSORS in self.matmuls and multiplies_activations(call))

    def attends(self, call: Call) -> bool:
        """Whether a layer is attention that is computed in integers."""
        return Trait.ATTENDS in self.matmuls and attends(call)

    def why_float(self, call: Call) -> str | None:
        """Why the runtime computes a call in floats, where that is known."""
        return next((why for name, why in self.float_only.items() if is_one_of(call, (name,))), None)
