"""Sums that had better stay in floats: residual connections of transformers.

A convolution computes an Add after it along, and an integer kernel that reads a sum wants it in integers. Between
matrix products and layer normalizations neither is so: integers save nothing, and a sum that runs through the whole
network would be rounded anew in each block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tensorflow_quantization.model.fusion import computing_readers, fused_convolution
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import Trait, origin, traits
from tensorflow_quantization.targets.reason import Reason, ReasonCode

if TYPE_CHECKING:
    from tensorflow_quantization.targets.draft import Draft

STAYS_IN_FLOATS = Reason(ReasonCode.NO_GAIN, "stays in floats: no integer kernel computes it along, or reads it")


def explain_float_sums(draft: Draft) -> None:
    """Say of each sum that stays in floats why, unless a reader wants it quantized."""
    for call in draft.graph.calls:
        if id(call) in draft.float_sums and call.path not in draft.placements:
            draft.update(call, STAYS_IN_FLOATS)


def find_float_sums(graph: LayerGraph, is_integer: Callable[[Call], bool]) -> set[int]:
    """The ids of the calls of sums that no convolution computes along and no integer kernel reads.

    Args:
        is_integer: whether a call is computed in integers if its tensors are quantized.
    """
    found: set[int] = set()
    for call in reversed(graph.calls):  # the readers of a sum are known before it
        if Trait.ADDS not in traits(call):
            continue
        convolved = any(fused_convolution(graph, origin(tensor)) is not None for tensor in call.inputs)
        readers = computing_readers(graph, call.outputs[0])
        if not convolved and not any(is_integer(reader) and id(reader) not in found for reader in readers):
            found.add(id(call))
    return found
