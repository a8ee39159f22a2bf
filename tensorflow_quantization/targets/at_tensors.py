"""Placement at tensors: one quantizer where a tensor is computed, shared by all readers of the tensor.

This suits runtimes that compute whole chains (convolution, normalization, activation) in one integer kernel.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorflow_quantization.model.fusion import fused_convolution, fusing_call, unrounded_sum_operand
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.targets.draft import Draft
from tensorflow_quantization.targets.kernel_rules import KernelRules
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.steps.float_sums import explain_float_sums
from tensorflow_quantization.targets.steps.kernels import place_kernels
from tensorflow_quantization.targets.steps.masks import explain_masks
from tensorflow_quantization.targets.steps.pooling import place_pooled_convolutions
from tensorflow_quantization.targets.steps.rounding import place_rounding_kernels
from tensorflow_quantization.targets.steps.stored_weights import place_stored_weights
from tensorflow_quantization.targets.target import Placement, PlacementRule, SwitchedOff

#: The order matters: a step reads the placements of the steps before it.
STEPS = (
    place_kernels,
    place_pooled_convolutions,
    place_rounding_kernels,
    explain_masks,
    explain_float_sums,
    place_stored_weights,
)


def at_tensors(rules: KernelRules) -> PlacementRule:
    """A placement rule with one quantizer for each tensor between integer kernels."""

    def place(graph: LayerGraph, switched_off: SwitchedOff) -> dict[str, Placement]:
        draft = Draft(graph, rules, switched_off)
        for step in STEPS:
            step(draft)
        return draft.placements

    return place


def why_not(rules: KernelRules) -> Callable[[LayerGraph, Call], Reason]:
    """A function that returns the reason why `at_tensors` places no quantizer for a call."""

    def reason(graph: LayerGraph, call: Call) -> Reason:
        if Trait.MOVES_DATA in traits(call):
            return Reason(ReasonCode.MOVES_DATA, "keeps the integers of its input")
        if (kernel := fusing_call(graph, call, rules.fusion, rules.is_integer)) is not None:
            return Reason(ReasonCode.FUSED, f"part of the kernel of {kernel.path}")
        if rules.unrounded_sums and (kernel := _adding(graph, call)) is not None:
            return Reason(ReasonCode.FUSED, f"part of the kernel of {kernel.path}, which adds before it rounds")
        if rules.is_integer(call):
            return Reason(ReasonCode.SHARES_QUANTIZER, "shares the quantizers of its inputs")
        return Reason(ReasonCode.NO_INTEGER_KERNEL, rules.why_float(call) or "not known to run in integers")

    return reason


def _adding(graph: LayerGraph, call: Call) -> Call | None:
    """The convolution whose kernel computes `call` and the sum after it."""
    reader = graph.only_reader(call.outputs[0]) if len(call.outputs) == 1 else None
    if reader is None or unrounded_sum_operand(graph, reader) is not call.outputs[0]:
        return None
    return fused_convolution(graph, call.outputs[0])
