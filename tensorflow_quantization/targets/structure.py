"""Rules on a network's structure: which inputs of a call to quantize. Each takes the graph and a call of it.

The cases of the old toolkit (`legacy.custom_qdq_cases`) and the placement for TensorRT are made of these. An empty
list: the rule does not speak of the call.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorflow_quantization.model.fusion import folded_into, fused_sum_operand
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits

StructureRule = Callable[[LayerGraph, Call], list[int]]


def residual_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """The inputs of an Add, but for the output of the convolution that the runtime fuses with it."""
    if Trait.ADDS not in traits(call):
        return []
    fused = fused_sum_operand(graph, call)
    return [index for index, tensor in enumerate(call.inputs) if tensor is not fused]


def unfolded_normalization_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a BatchNormalization that is not folded into the layer before it."""
    return [0] if Trait.NORMALIZES in traits(call) and folded_into(graph, call) is None else []


def max_pooling_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a MaxPooling2D."""
    return [0] if is_one_of(call, ("MaxPooling2D",)) else []


def multiply_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """All inputs of a Multiply: an image and its gate, in squeeze-and-excitation."""
    return list(range(len(call.inputs))) if is_one_of(call, ("Multiply",)) else []


def first_of(*rules: StructureRule) -> StructureRule:
    """Several rules as one: the first that speaks of a call decides."""

    def rule(graph: LayerGraph, call: Call) -> list[int]:
        return next((found for one in rules if (found := one(graph, call))), [])

    return rule
