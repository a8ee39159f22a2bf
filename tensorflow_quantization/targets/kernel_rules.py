"""`KernelRules`: what a runtime computes in integers, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import keras

from tensorflow_quantization.model.activations import Activation, activation_of
from tensorflow_quantization.model.equation import as_matrix
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import NO_TRAITS, Trait, attends, is_one_of, multiplies_activations, traits
from tensorflow_quantization.model.recurrence import cells_of

#: Recurrent layers, for `KernelRules.stored`.
RECURRENT = frozenset({"Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN"})


@dataclass(frozen=True)
class KernelRules:
    """What a runtime computes in integers, and what its kernels need for it.

    Classes are names of Keras' layers and operations; a subclass counts as its base.

    Attributes:
        weighted: classes of layers with weights that have an integer kernel.
        stored: classes of recurrent layers whose weights the file stores as integers, and the runtime computes in
            float.
        unweighted: other classes of layers and operations that have an integer kernel.
        matmuls: the kinds of matrix products of two activations that have an integer kernel: `Trait.ATTENDS`,
            `Trait.MULTIPLIES_TENSORS`, both or neither.
        projections: attention that projects its inputs computes the projections in integers, and the rest in float.
        matrices_only: an EinsumDense has an integer kernel only if it is a product with a matrix, see `as_matrix`.
        fusion: which operations after a product its kernel fuses.
        gated: activations that have an integer kernel if their gate is quantized too.
        activations: activations that have a separate integer kernel where no kernel before fuses them.
        constant_operands: sums and products with a constant, and quotients by a constant, have an integer kernel.
        pairs: classes in `unweighted` whose kernel takes two inputs: with more inputs they stay in float.
        binary: the same, but what is around them is in integers: more inputs are combined in float between integers.
        equal_shapes: classes in `unweighted` whose kernel does not broadcast: inputs of other shapes stay in float.
        float_only: by class name, why the runtime computes a layer or operation in float, a clause.
        fixed_ranges: the scale and zero point that the runtime demands for the output of an activation.
        same_scale: classes whose input and output need the same scale and zero point.
        joins_known_sizes: parts of unknown size are concatenated in float, between integers.
        quantized_outputs: a kernel runs in integers only if its output, after the fused operations, is quantized too.
        float_matmul_outputs: an exception from `quantized_outputs`: a matrix product writes floats if no integer kernel
            reads its output.
        unrounded_sums: a convolution with a fused Add adds the other operand before it requantizes.
        float_residuals: a sum stays in float where integers save nothing, see `targets.float_sums`.
        quantized_pooling: the output of a convolution is quantized if a float layer reads it after pooling, which moves
            fewer bytes.
        rounding: classes whose kernels may round their output to integers without a quantizer. They stay in float if
            no quantizer sets these integers.
    """

    weighted: frozenset[str]
    unweighted: frozenset[str]
    stored: frozenset[str] = frozenset()
    matmuls: Trait = NO_TRAITS
    projections: bool = False
    matrices_only: bool = False
    fusion: KernelFusion = field(default_factory=KernelFusion)
    gated: frozenset[Activation] = frozenset()
    activations: frozenset[Activation] = frozenset()
    constant_operands: bool = False
    pairs: frozenset[str] = frozenset()
    binary: frozenset[str] = frozenset()
    equal_shapes: frozenset[str] = frozenset()
    float_only: Mapping[str, str] = field(default_factory=dict)
    fixed_ranges: Mapping[Activation, tuple[float, int]] = field(default_factory=dict)
    same_scale: frozenset[str] = frozenset()
    quantized_outputs: bool = False
    joins_known_sizes: bool = False
    float_matmul_outputs: bool = False
    unrounded_sums: bool = False
    float_residuals: bool = False
    quantized_pooling: bool = False
    rounding: frozenset[str] = frozenset()

    def is_integer(self, call: Call) -> bool:
        """Whether a call is computed in integers if its tensors are quantized."""
        if _reads_integers(call):
            return False
        activation = activation_of(call.operation)
        if activation in self.gated:
            return call.is_layer
        if activation in self.activations or self.multiplies_activations(call) or self.projects(call):
            return True
        if self.matrices_only and is_one_of(call, ("EinsumDense",)) and as_matrix(call.operation) is None:
            return False
        if Trait.DIVIDES in traits(call):
            return self.constant_operands and len(call.operands) == 1 and call.args[0] is call.operands[0]
        if len(call.operands) > 2 and is_one_of(call, self.pairs):
            return False
        if len({tensor.shape for tensor in call.operands}) > 1 and is_one_of(call, self.equal_shapes):
            return False
        if not call.is_layer and Trait.MERGES in traits(call) and len(call.operands) < 2:
            return self.constant_operands
        return is_one_of(call, self.weighted | self.unweighted)

    def multiplies_activations(self, call: Call) -> bool:
        """Whether a call is a matrix product of activations, or attention, with an integer kernel."""
        return self.attends(call) or (Trait.MULTIPLIES_TENSORS in self.matmuls and multiplies_activations(call))

    def attends(self, call: Call) -> bool:
        """Whether a call is attention with an integer kernel."""
        return Trait.ATTENDS in self.matmuls and attends(call)

    def projects(self, call: Call) -> bool:
        """Whether a call is attention whose projections, and nothing else, have integer kernels."""
        return self.projections and Trait.PROJECTS in traits(call)

    def stores(self, call: Call) -> bool:
        """Whether the weights of a call are integers in the file, and the call is computed in float."""
        return is_one_of(call, self.stored) and bool(cells_of(call.operation))

    def why_float(self, call: Call) -> str | None:
        """Why the runtime computes a call in float, a clause; `None` if it is not known."""
        if len(call.operands) > 2 and is_one_of(call, self.binary):
            return "computed in float: its kernel takes two inputs"
        if self.joins_known_sizes and is_one_of(call, ("Concatenate",)):
            axis = call.operation.axis
            if any(tensor.shape[axis] is None for tensor in call.inputs):
                return "computed in float: the size of a part is unknown"
        if self.stores(call):
            return "computed in float: only its weights are integers, in the file"
        if is_one_of(call, self.stored):
            return "computed in float: only the weights of GRUCell, LSTMCell, SimpleRNNCell and ConvLSTM are quantized"
        if Trait.SCALES_CHANNELS in traits(call) and _reads_integers(call):
            return f"computed in float: its input is {call.inputs[0].dtype}"
        return next((why for name, why in self.float_only.items() if is_one_of(call, (name,))), None)


def _reads_integers(call: Call) -> bool:
    """Whether no input is float. An image of integers, for example, is cast to float and then rescaled."""
    return not any(keras.backend.is_float_dtype(tensor.dtype) for tensor in call.inputs)
