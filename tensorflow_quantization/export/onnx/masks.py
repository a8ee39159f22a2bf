"""Masks of sequences. Keras attaches masks to its tensors when a model runs; `Masks` does the same for a graph.

Some calls have a mask among their arguments when the graph is traced; other calls get it when the model runs. For
these, `Masks` repeats what Keras does: a layer creates a mask, reads the masks of its inputs, and passes one to its
outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import tree

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.own_masks import own_masks
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.masking import MaskOf, computes_own_mask, first_argument, mask_parameters
from tensorflow_quantization.wrappers import inner_layer

_layers = keras.layers
_ATTENTION = (_layers.Attention, _layers.AdditiveAttention)
_MERGING = (_layers.Add, _layers.Subtract, _layers.Average)
#: Merging layers that leave out the masked steps of their inputs.
_CHOOSING = (_layers.Multiply, _layers.Maximum, _layers.Minimum)


class Masks:
    """The mask of each tensor of a graph that has one."""

    def __init__(self):
        self._masks: dict[int, Value] = {}

    def arguments(self, call: Call) -> dict[str, Any]:
        """The masks that Keras would add to the arguments of a call, by argument name."""
        layer = call.operation
        if not self._masks or not call.is_layer:
            return {}
        # MultiHeadAttention reads the mask of the query itself, not the argument.
        inner = inner_layer(layer)
        ignored = ("query_mask",) if isinstance(inner, _layers.MultiHeadAttention) else ()
        wanted = mask_parameters(call, inner, ignored)
        masks = {name: tree.map_structure(self._of, argument) for name, argument in wanted.items()}
        return {n: mask for n, mask in masks.items() if any(m is not None for m in tree.flatten(mask))}

    def follow(self, e: Emission, call: Call, inputs: Sequence[Value]) -> None:
        """Note the masks of a call's outputs.

        Args:
            e: the emission of the call.
            inputs: the values of its tensor arguments.
        """
        layer = call.operation
        if isinstance(layer, MaskOf):
            self._follow_mask_of(e, call, inputs)
            return
        if not call.is_layer:
            return
        inner = inner_layer(layer)
        if computes_own_mask(inner):
            self._note(call.outputs, self._own(e, inner, call, first_argument(call), inputs))
            return
        made = _made(e, inner, call, inputs)
        before = [self._of(t) for t in _first_tensors(call)]
        if made is None and any(m is not None for m in before) and layer.supports_masking:
            made = _handed_on(e, inner, before, _first_tensors(call))
        if isinstance(inner, _layers.MultiHeadAttention):
            for tensor in call.inputs:  # Keras removes the masks from its inputs, for later layers too
                self._masks.pop(id(tensor), None)
        self._note(call.outputs, made or [])

    def _note(self, tensors: Sequence[Tensor], masks: Sequence[Value | None]) -> None:
        self._masks.update((id(x), mask) for x, mask in zip(tensors, masks, strict=False) if mask is not None)

    def _follow_mask_of(self, e: Emission, call: Call, values: Sequence[Value]) -> None:
        """Note the mask of an output of a layer that was replaced; Keras keeps one that a layer within it made."""
        output, read = call.args
        mask = self._of(output)
        if mask is None:
            masks = self._own(e, call.operation.layer, call, read, values)
            mask = next(iter(masks[call.operation.index :]), None)
        self._note(call.outputs, [mask])

    def _own(self, e: Emission, layer: Any, call: Call, read: Any, values: Sequence[Value]) -> list[Value | None]:
        """The masks that `layer` computes from the structure of tensors `read`, inputs of the call."""
        held = dict(zip(map(id, call.inputs), values, strict=True))
        return own_masks(
            e, layer, tree.map_structure(lambda x: held.get(id(x), x), read), tree.map_structure(self._of, read)
        )

    def _of(self, tensor: Any) -> Value | None:
        return self._masks.get(id(tensor))


def _first_tensors(call: Call) -> list[Tensor]:
    """The tensors of the first argument, whose masks a layer passes to its outputs."""
    return [x for x in tree.flatten(first_argument(call)) if isinstance(x, Tensor)]


def _made(e: Emission, layer: Any, call: Call, inputs: Sequence[Value]) -> list[Value | None] | None:
    """The masks that Embedding and Masking create; `None` for other layers."""
    if isinstance(layer, _layers.Embedding) and layer.mask_zero and not call.kwargs.get("reverse"):
        x = e.arrange(inputs[0])
        seen = e.op("Not", e.op("Equal", x, np.zeros((), x.dtype)), name="mask")
        return [Value(seen, x.shape, "bool")]
    if isinstance(layer, _layers.Masking):
        x = e.arrange(inputs[0])
        return [Value(steps_that_count(e, layer, x, keepdims=False), x.shape[:-1], "bool")]
    return None


def steps_that_count(e: Emission, layer: Any, x: Value, keepdims: bool) -> ir.Value:
    """True for each step whose vector differs from the `mask_value` of a Masking layer."""
    differs = e.op("Not", e.op("Equal", x, np.asarray(layer.mask_value, x.dtype)))
    numbers = e.op("Cast", differs, to=ir.DataType.INT32.value)
    return e.op("Cast", e.op("ReduceMax", numbers, axes=[-1], keepdims=int(keepdims)), to=ir.DataType.BOOL.value)


def _handed_on(e: Emission, layer: Any, before: list[Value | None], tensors: list[Tensor]) -> list[Value | None]:
    """The masks of the outputs, as Keras' `compute_mask` returns them for each layer."""
    if isinstance(layer, _layers.RNN | _layers.Bidirectional):
        one = before[0] if layer.return_sequences else None
        return [one, one] if isinstance(layer, _layers.Bidirectional) and layer.merge_mode is None else [one]
    if isinstance(layer, _layers.GlobalAveragePooling1D | _layers.Dot):
        return []
    if isinstance(layer, _ATTENTION):
        return before[:1]
    if isinstance(layer, _layers.Concatenate):
        return [_concatenated(e, layer, before, tensors)]
    if isinstance(layer, _CHOOSING):
        raise NotExpressibleError("leaves out the masked steps of its inputs, which is not exported")
    if isinstance(layer, _MERGING):
        return [_either(e, before)] if all(m is not None for m in before) else []
    return before


def _either(e: Emission, masks: Sequence[Value | None]) -> Value:
    """A step is unmasked if it is unmasked in one of the masks."""
    union, *others = [m for m in masks if m is not None]
    for m in others:
        union = union if m is union else union.with_onnx(e.op("Or", union, m, name="mask"))
    return union


def _concatenated(e: Emission, layer: Any, before: list[Value | None], tensors: list[Tensor]) -> Value | None:
    """The mask of a concatenation. Along the last axis: true where one of the inputs is unmasked."""
    rank = len(tensors[0].shape)
    axis = layer.axis % rank
    masks = [m for m in before if m is not None]
    if axis == rank - 1:
        return _either(e, masks) if len(masks) == len(before) else None
    if len(masks) < len(before) or masks[0].rank != rank - 1:
        raise NotExpressibleError("joins masked and unmasked steps")
    sizes = [m.shape[axis] for m in masks]
    total = None if None in sizes else sum(d for d in sizes if d is not None)
    shape = tuple(total if i == axis else d for i, d in enumerate(masks[0].shape))
    return Value(e.op("Concat", *masks, axis=axis, name="mask"), shape, "bool")
