"""The output of an integer kernel, for runtimes whose kernels run in integers only if their output is quantized."""

from __future__ import annotations

from tensorflow_quantization.model.activations import Activation, own_activation
from tensorflow_quantization.model.fusion import computing_readers, fused_calls
from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.op_traits import Trait, reads_factor, traits
from tensorflow_quantization.targets.draft import COMPUTED_IN_INTEGERS, Draft, written_by


def place_output(draft: Draft, call: Call) -> None:
    """Quantize the output of the kernel of `call`.

    If the kernel does not fuse the `activation` argument of the layer, the kernel's output is the input of the
    activation, which is then a separate operation.
    """
    rules = draft.rules
    if not rules.quantized_outputs or (rules.float_matmul_outputs and _is_float_matmul(draft, call)):
        return
    own = own_activation(call.operation)
    if own is Activation.LINEAR or own in rules.fusion.activations:
        draft.quantize(_written(draft, call), written_by(call.path))
        return
    draft.update(call, COMPUTED_IN_INTEGERS, pre_activation=True)
    if own in rules.gated | rules.activations:
        draft.quantize(call.outputs[0], written_by(own))
    if own in rules.gated:
        draft.place_gate(call)


def _written(draft: Draft, call: Call) -> Tensor:
    """The tensor that the kernel of `call` writes, after the calls that it fuses."""
    return [call, *fused_calls(draft.graph, call, draft.rules.fusion)][-1].outputs[0]


def _is_float_matmul(draft: Draft, call: Call) -> bool:
    """Whether `call` is a matrix product whose output no integer kernel reads."""
    rules = draft.rules
    if Trait.IS_MATRIX_PRODUCT not in traits(call) and not rules.multiplies_activations(call):
        return False
    own = own_activation(call.operation)
    if own is not Activation.LINEAR and own not in rules.fusion.activations | rules.gated | rules.activations:
        return True  # a float activation reads it
    written = _written(draft, call)
    readers = computing_readers(draft.graph, written)
    return not any(draft.is_integer(reader) and reads_factor(reader, written) for reader in readers)
