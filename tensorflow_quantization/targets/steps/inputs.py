"""The inputs of an integer kernel: each is quantized where it is computed, for all its readers."""

from __future__ import annotations

from tensorflow_quantization.model.activations import Activation, last_activation
from tensorflow_quantization.model.fusion import fused_sum_operand
from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.op_traits import Trait, origin, traits
from tensorflow_quantization.targets.draft import Draft, Side, read_by


def place_inputs(draft: Draft, call: Call) -> None:
    """Quantize the operands of an integer kernel."""
    # Attention with projections multiplies the projected tensors with one another, not its inputs.
    is_matmul = draft.rules.multiplies_activations(call) and Trait.PROJECTS not in traits(call)
    for index, tensor in enumerate(call.operands):
        if draft.rules.unrounded_sums and _is_unrounded(draft, call, tensor):
            continue
        side = (Side.RIGHT if index else Side.LEFT) if is_matmul else None
        draft.quantize(tensor, read_by(call), side)


def _is_unrounded(draft: Draft, call: Call, tensor: Tensor) -> bool:
    """Whether `call` is a sum that fuses into the convolution that computes `tensor`, after it clips at most."""
    if fused_sum_operand(draft.graph, call) is not tensor:
        return False
    activation = last_activation(origin(tensor))
    return activation is Activation.LINEAR or activation.clips
