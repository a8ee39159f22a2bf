"""Rules on a network's structure: which inputs of a call to quantize. Each takes the graph and a call of it.

The cases of the old toolkit (`legacy.custom_qdq_cases`) and the placement for TensorRT are made of these. An empty
list: the rule does not speak of the call.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorflow_quantization.model.graph import Call, LayerGraph

StructureRule = Callable[[LayerGraph, Call], list[int]]


def residual_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """The inputs of an Add, but the one that a runtime computes along with the convolution it comes from."""
    if "Add" not in call.class_names:
        return []
    fused = graph.fused_with_sum(call)
    return [index for index, tensor in enumerate(call.inputs) if tensor is not fused]


def unfolded_normalization_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a BatchNormalization that is not folded into the layer before it."""
    if "BatchNormalization" not in call.class_names:
        return []
    return [] if graph.fusable_convolution(call.inputs[0]) is not None else [0]


def max_pooling_input(graph: LayerGraph, call: Call) -> list[int]:
    """The input of a MaxPooling2D."""
    return [0] if "MaxPooling2D" in call.class_names else []


def multiply_inputs(graph: LayerGraph, call: Call) -> list[int]:
    """All inputs of a Multiply: an image and its gate, in squeeze-and-excitation."""
    return list(range(len(call.inputs))) if "Multiply" in call.class_names else []


def first_of(*rules: StructureRule) -> StructureRule:
    """Several rules as one: the first that speaks of a call decides."""

    def rule(graph: LayerGraph, call: Call) -> list[int]:
        return next((found for one in rules if (found := one(graph, call))), [])

    return rule
