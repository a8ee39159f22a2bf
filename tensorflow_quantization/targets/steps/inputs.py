"""The inputs of an integer kernel: each is quantized where it is computed, for all its readers."""

from __future__ import annotations

from tensorflow_quantization.model.fusion import unrounded_sum_operand
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import Trait, factors, traits
from tensorflow_quantization.targets.draft import Draft, Side, read_by


def place_inputs(draft: Draft, call: Call) -> None:
    """Quantize the operands of an integer kernel."""
    # Attention with projections multiplies the projected tensors with one another, not its inputs.
    is_matmul = draft.rules.multiplies_activations(call) and Trait.PROJECTS not in traits(call)
    for index in factors(call):
        tensor = call.operands[index]
        if draft.rules.unrounded_sums and unrounded_sum_operand(draft.graph, call) is tensor:
            continue
        side = (Side.RIGHT if index else Side.LEFT) if is_matmul else None
        if side is not None or not draft.quantize_operand(call, index):
            draft.quantize(tensor, read_by(call), side)
