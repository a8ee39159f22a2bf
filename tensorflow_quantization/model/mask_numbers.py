"""Tensors that hold the huge numbers by which code masks scores, such as -1e9, among other values.

`where(mask, scores, -1e9)` and `scores + (1 - mask) * -1e9` are read by a softmax. Integers cannot hold their values:
one step of a range down to -1e9 is millions of times as wide as all scores together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from keras import tree

from tensorflow_quantization.model.activations import Activation, activation_of
from tensorflow_quantization.model.fusion import folded_into
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.model.own_weights import OwnWeight
from tensorflow_quantization.model.weights import float32_array

#: The least magnitude of such a number. The original BERT masks by -1e4, and float16 has none beyond 65504.
HUGE = 1e4

#: Operations that put a constant among their values, or make a mask of numbers from a mask of zeros and ones. Limits,
#: as of `maximum(x, -1e9)`, are not there.
_SOURCES = frozenset({"Add", "FullLike", "Multiply", "Subtract", "Where"})
#: Operations whose output holds the huge numbers that their input holds.
_CARRIES = Trait.MOVES_DATA | Trait.MERGES | Trait.SELECTS | Trait.SCALES_CHANNELS
_CARRYING = frozenset({"BroadcastTo", "Cast", "Negative", "Tile"})
#: What makes zeros of huge negative numbers, or leaves them out: a huge number that none of these reads is no mask.
_READERS = frozenset({"Argmax", "Exp", "LogSoftmax", "Logsumexp", "Max", "Sigmoid", "Softmax"})


def mask_numbers(graph: LayerGraph) -> set[int]:
    """Returns the ids of the tensors of a flat graph that hold huge numbers, from a mask until a softmax reads them.

    Examples:
        >>> scores, mask = keras.Input((4, 4)), keras.Input((4, 4))
        >>> masked = keras.ops.softmax(scores + (1 - mask) * -1e9)
        >>> graph = LayerGraph.trace(keras.Model([scores, mask], masked))
        >>> held = mask_numbers(graph)
        >>> [call.class_name for call in graph.calls if id(call.outputs[0]) in held]
        ['Multiply', 'Add']
    """
    read: set[int] = set()
    for call in reversed(graph.calls):
        reads = is_one_of(call, _READERS) or activation_of(call.operation) is Activation.SOFTMAX
        if reads or (_carries(call) and any(id(tensor) in read for tensor in call.outputs)):
            read.update(id(tensor) for tensor in call.inputs)
    held: set[int] = set()
    for call in graph.calls:
        carried = _carries(call) and any(id(tensor) in held for tensor in call.inputs)
        # A factor that is folded into a product scales all its values alike.
        if carried or (_has_huge_constant(call) and folded_into(graph, call) is None):
            held.update(id(tensor) for tensor in call.outputs if id(tensor) in read)
    return held


def _carries(call: Call) -> bool:
    return bool(traits(call) & _CARRIES) or is_one_of(call, _CARRYING | _SOURCES)


def masks(call: Call, held: Collection[int]) -> bool:
    """Returns whether a call masks by huge numbers: it returns such, and gets none; or it is a Softmax with a mask.

    Args:
        call: a call.
        held: the ids that `mask_numbers` returns.
    """
    if is_one_of(call, ("Softmax",)):
        return len(call.inputs) > 1
    return id(call.outputs[0]) in held and not any(id(x) in held for x in call.inputs)


def _has_huge_constant(call: Call) -> bool:
    if isinstance(call.operation, OwnWeight):
        return not call.operation.trains and _is_huge(call.operation.value)
    if call.is_layer or not is_one_of(call, _SOURCES):
        return False
    return any(_is_huge(x) for x in tree.flatten((call.args, call.kwargs)) if not isinstance(x, Tensor))


def _is_huge(value: Any) -> bool:
    """Whether an argument of a call is, or holds, a huge number."""
    if isinstance(value, int | float):
        return abs(value) >= HUGE
    if getattr(value, "dtype", None) is None:
        return False
    array = float32_array(value)
    return bool(array.size) and bool(np.abs(array).max() >= HUGE)
