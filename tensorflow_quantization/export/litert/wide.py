"""Activations of 16 bits: what TensorFlow's converter lacks for them, though LiteRT computes with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import tree

from tensorflow_quantization.export.litert.calls import inner_call, is_moving, quantizer_of, shared_quantizer
from tensorflow_quantization.export.litert.constants import Step, fake_quantize, plus_zero
from tensorflow_quantization.model.fusion import is_identity
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.quantizers.scheme import WIDE_BITS
from tensorflow_quantization.targets.litert import WIDE_RULES
from tensorflow_quantization.wrappers import activation_quantizers

#: Operations that have a kernel if quantizers are around them.
_REDUCTIONS = ("Mean",)
#: Moves that have no kernel.
_REPETITIONS = ("Repeat", "RepeatVector", "Tile")


def is_wide(graph: LayerGraph) -> bool:
    """Whether the activations of a model have 16 bits."""
    quantizers = (q for call in graph.calls for q in activation_quantizers(call.operation))
    return any(q.scheme.bits == WIDE_BITS for q in quantizers)


def is_float(call: Call) -> bool:
    """Whether a call has no kernel for integers of 16 bits, or no quantizer, and has to be kept in floats."""
    inner = inner_call(call)
    integer = Trait.JOINS in traits(inner) or is_one_of(inner, _REDUCTIONS) or WIDE_RULES.is_integer(inner)
    integer |= is_identity(inner)
    integer &= not getattr(inner.operation, "threshold", None)  # of a ReLU, which is two operators then
    return is_one_of(inner, _REPETITIONS) if is_moving(call) else not integer


def in_floats(step: Step) -> Step:
    """A step whose tensors the converter gives no scales, which it would take from the quantizers around it."""

    def computed(*args: Any, **kwargs: Any) -> Any:
        y = step(*tree.map_structure(_without_scale, args), **kwargs)
        return tree.map_structure(_without_scale, y)

    return computed


def _without_scale(x: Any) -> Any:
    import tensorflow as tf

    return plus_zero(x, x) if tf.is_tensor(x) and x.dtype.is_floating and x.shape.rank else x


def concatenated(graph: LayerGraph, call: Call) -> Step | None:
    """A concatenation as a sum of its parts, each padded with zeros to the whole; `None` for other calls.

    The converter does not write concatenations of int16. A sum of integers rescales each part to the scale of the
    output, as the concatenation of Keras does: the others add zero. Parts of unknown size are joined in float: of a
    padding that is known at run time the converter loses all sizes, and with them the convolution that reads it.

    Args:
        graph: the flat graph.
        call: a call in it.
    """
    inner, shared = inner_call(call), shared_quantizer(graph, call)
    if shared is None or not is_one_of(inner, ("Concatenate",)):
        return None
    quantize: Callable[[Any], Any] = fake_quantize(shared)
    axis = inner.operation.axis % len(call.outputs[0].shape)
    are_floats = [quantizer_of(tensor) is None for tensor in call.inputs]

    def step(tensors: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        sizes = [x.shape[axis] for x in tensors]
        if None in sizes:
            parts = [
                _without_scale(quantize(x) if floats else x) for x, floats in zip(tensors, are_floats, strict=True)
            ]
            return _without_scale(tf.concat(parts, axis))
        total = None
        for index, x in enumerate(tensors):
            padding: list[list[Any]] = [[0, 0] for _ in x.shape]
            padding[axis] = [sum(sizes[:index]), sum(sizes[index + 1 :])]
            part = tf.pad(quantize(x) if are_floats[index] else x, padding)
            total = part if total is None else quantize(total + part)
        return total

    return step
