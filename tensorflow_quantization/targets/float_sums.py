"""Sums that stay in float: residual sums of transformers, for example.

A sum is quantized only if it fuses into a convolution or an integer kernel reads it. Neither holds for a sum between
matrix products and layer normalizations: integers save nothing there, and each block would round the sum again.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorflow_quantization.model.fusion import computing_readers, fused_convolution
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import Trait, origin, reads_factor, traits
from tensorflow_quantization.targets.reason import Reason, ReasonCode

STAYS_IN_FLOATS = Reason(ReasonCode.NO_GAIN, "stays in float: no convolution fuses it, and no integer kernel reads it")


def find_float_sums(graph: LayerGraph, is_integer: Callable[[Call], bool]) -> set[int]:
    """The ids of calls that are sums which no convolution fuses and no integer kernel reads.

    Args:
        graph: a flat graph.
        is_integer: whether a call is computed in integers if its tensors are quantized.
    """
    found: set[int] = set()
    for call in reversed(graph.calls):  # readers first: a sum may read another sum
        if Trait.ADDS not in traits(call):
            continue
        convolved = any(fused_convolution(graph, origin(tensor)) is not None for tensor in call.inputs)
        output = call.outputs[0]
        readers = [reader for reader in computing_readers(graph, output) if reads_factor(reader, output)]
        if not convolved and not any(is_integer(reader) and id(reader) not in found for reader in readers):
            found.add(id(call))
    return found
