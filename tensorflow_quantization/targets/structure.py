"""Rules on a network's structure: each returns the indices of the inputs of a call to quantize.

The cases of NVIDIA's toolkit (`legacy.custom_qdq_cases`) and the placement for TensorRT combine these rules. An empty
list means that the rule does not apply to the call.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorflow_quantization.model.fusion import folded_into, fused_convolution, fused_sum_operand
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, is_one_of, origin, traits

_LAYER_NORMALIZATION = ("LayerNormalization",)

StructureRule = Callable[[LayerGraph, Call], list[int]]


def residual_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """The inputs of an Add, except the output of the convolution that fuses the Add."""
    if Trait.ADDS not in traits(call):
        return []
    fused = fused_sum_operand(graph, call)
    return [index for index, tensor in enumerate(call.operands) if tensor is not fused]


def sum_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """The `residual_inputs`; of a sum or mean of more than two, all inputs, since no convolution fuses it."""
    if len(call.operands) > 2 and (Trait.ADDS in traits(call) or is_one_of(call, ("Average",))):
        return list(range(len(call.operands)))
    return residual_inputs(graph, call)


def unfolded_normalization_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a BatchNormalization that is not folded into the layer before it."""
    return [0] if Trait.NORMALIZES in traits(call) and folded_into(graph, call) is None else []


def normalized_parts(graph: LayerGraph, call: Call) -> list[int]:
    """For a BatchNormalization of a concatenation: what is concatenated, once however many concatenations follow.

    This is for the calls that concatenate. A BatchNormalization of anything else: its `unfolded_normalization_input`.
    """
    if Trait.JOINS in traits(call):
        parts = [index for index, tensor in enumerate(call.operands) if not _is_joined(tensor)]
        return parts if _is_normalized(graph, call.outputs[0]) else []
    return [] if call.inputs and _is_joined(call.inputs[0]) else unfolded_normalization_input(graph, call)


def _is_joined(tensor: Tensor) -> bool:
    """Whether concatenation makes a tensor."""
    return tensor.producer is not None and Trait.JOINS in traits(tensor.producer)


def _is_normalized(graph: LayerGraph, tensor: Tensor) -> bool:
    """Whether a BatchNormalization reads a tensor, or what it is concatenated to."""
    return any(
        Trait.NORMALIZES in traits(reader)
        or (Trait.JOINS in traits(reader) and _is_normalized(graph, reader.outputs[0]))
        for reader in graph.consumers(tensor)
    )


def layer_normalization_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a LayerNormalization that a convolution or another one writes, also after layers that move data."""
    if not is_one_of(call, _LAYER_NORMALIZATION):
        return []
    source = origin(call.inputs[0])
    normalized = source.producer is not None and is_one_of(source.producer, _LAYER_NORMALIZATION)
    return [0] if normalized or fused_convolution(graph, source) is not None else []


def max_pooling_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a MaxPooling2D."""
    return [0] if is_one_of(call, ("MaxPooling2D",)) else []


def multiply_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """All inputs of a Multiply of tensors: in squeeze-and-excitation, the feature map and its gate."""
    return list(range(len(call.operands))) if is_one_of(call, ("Multiply",)) and len(call.operands) > 1 else []


def first_of(*rules: StructureRule) -> StructureRule:
    """Combine rules: the first rule that returns inputs for a call decides."""

    def rule(graph: LayerGraph, call: Call) -> list[int]:
        return next((found for one in rules if (found := one(graph, call))), [])

    return rule
