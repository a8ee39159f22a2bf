"""Every integer kernel: its weights, gate, inputs and output."""

from __future__ import annotations

from tensorflow_quantization.model.activations import activation_of
from tensorflow_quantization.model.fusion import fused_calls
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.targets.draft import COMPUTED_IN_INTEGERS, Draft
from tensorflow_quantization.targets.steps.attention import place_inner_matmuls, place_projections
from tensorflow_quantization.targets.steps.inputs import place_inputs
from tensorflow_quantization.targets.steps.outputs import place_output


def place_kernels(draft: Draft) -> None:
    """Quantize around each integer kernel that no other kernel fuses."""
    rules, graph = draft.rules, draft.graph
    kernels = [call for call in graph.calls if draft.is_integer(call)]
    fused = {id(inner) for call in kernels for inner in fused_calls(graph, call, rules.fusion)}
    for call in kernels:
        if id(call) in fused or draft.switched_off(call) or is_one_of(call, rules.rounding):
            continue
        if activation_of(call.operation) in rules.gated:
            draft.place_gate(call)
        if is_one_of(call, rules.weighted):
            place_weights(draft, call)
        if is_one_of(call, rules.same_scale):
            draft.update(call, COMPUTED_IN_INTEGERS, inputs=(0,), output=True, same_scale=True)
            continue
        if rules.attends(call):
            place_inner_matmuls(draft, call)
        elif rules.projects(call):
            place_projections(draft, call)
        place_inputs(draft, call)
        place_output(draft, call)


def place_weights(draft: Draft, call: Call) -> None:
    """Quantize the kernels of a layer, and the tensor between the two kernels of a separable convolution."""
    draft.update(call, COMPUTED_IN_INTEGERS, weights=True, pointwise_input=Trait.HAS_INNER_PRODUCT in traits(call))
