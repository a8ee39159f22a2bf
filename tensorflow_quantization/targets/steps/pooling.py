"""Outputs of convolutions that a float layer reads after pooling: integers are fewer bytes to write and to pool."""

from __future__ import annotations

from tensorflow_quantization.model.fusion import fused_convolution
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, origin, traits
from tensorflow_quantization.targets.draft import Draft
from tensorflow_quantization.targets.reason import Reason, ReasonCode


def place_pooled_convolutions(draft: Draft) -> None:
    """Quantize the output of each convolution that a float normalization reads after pooling or padding."""
    if not draft.rules.quantized_pooling:
        return
    for call in draft.graph.calls:
        tensor = _moved_convolution(draft.graph, call)
        if tensor is not None and not draft.switched_off(call):
            text = f"written by an integer kernel and pooled before {call.path}"
            draft.quantize(tensor, Reason(ReasonCode.WRITTEN_IN_INTEGERS, text))


def _moved_convolution(graph: LayerGraph, call: Call) -> Tensor | None:
    """The output of a convolution that `call`, a normalization, reads after layers that only move data."""
    if Trait.NORMALIZES not in traits(call):
        return None
    tensor = origin(call.inputs[0])
    return tensor if tensor is not call.inputs[0] and fused_convolution(graph, tensor) is not None else None
