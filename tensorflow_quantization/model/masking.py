"""Masks of sequences: Keras attaches them to its tensors when a model runs, so they are no tensors of a graph."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.keras_classes import is_of_keras, is_of_package
from tensorflow_quantization.model.keras_internals import keras_mask, set_mask, sublayers


def masked_calls(graph: LayerGraph) -> set[str]:
    """Returns the paths of the calls that may get a tensor with a mask.

    Args:
        graph: a flat graph.
    """
    paths: set[str] = set()
    masked: set[int] = set()
    for call in graph.calls:
        reached = any(id(tensor) in masked for tensor in call.inputs)
        if reached:
            paths.add(call.path)
        if call.is_layer and ((reached and call.operation.supports_masking) or _makes_mask(call.operation)):
            masked.update(id(tensor) for tensor in call.outputs)
    return paths


def mask_parameters(
    call: Call, inner: keras.layers.Layer | None = None, ignored: Collection[str] = ()
) -> dict[str, Any]:
    """Returns the arguments of a layer's call whose masks Keras adds, by the parameter that takes the mask.

    Args:
        call: the call of a layer.
        inner: the layer in a wrapper, which reads the masks of the tensors that the wrapper gets; default: no wrapper.
        ignored: parameters that Keras fills although the call has an argument for them; default none.
    """
    names = call.operation.call_signature_parameters
    takes = {*names, *(inner.call_signature_parameters if inner is not None else ())}
    bound = {n: a for n, a in [*zip(names, call.args, strict=False), *call.kwargs.items()] if _is_tensors(a)}
    if len(bound) == 1:
        wanted = {"mask": next(iter(bound.values()))}
    else:
        wanted = {f"{name}_mask": argument for name, argument in bound.items()}
    given = {name for name, argument in call.kwargs.items() if argument is not None and name not in ignored}
    return {name: argument for name, argument in wanted.items() if name in takes and name not in given}


def _is_tensors(argument: Any) -> bool:
    flat = tree.flatten(argument)
    return bool(flat) and all(isinstance(x, Tensor) for x in flat)


def first_argument(call: Call) -> Any:
    """Returns the first argument of a call, whose masks Keras gives to `compute_mask`; `None` if there is none."""
    return call.args[0] if call.args else next(iter(call.kwargs.values()), None)


def computes_own_mask(layer: Any) -> bool:
    """Returns whether Keras calls a `compute_mask` of a layer that neither Keras nor this package defines."""
    definer = next(base for base in type(layer).__mro__ if "compute_mask" in vars(base))
    own = not (is_of_keras(definer) or is_of_package(definer))  # our wrappers hand on what their layers do
    return own and layer.supports_masking


def _makes_mask(layer: keras.layers.Layer) -> bool:
    return any(
        (isinstance(one, keras.layers.Embedding) and one.mask_zero)
        or isinstance(one, keras.layers.Masking)
        or computes_own_mask(one)
        for one in (layer, *sublayers(layer))
    )


class MaskOf(keras.Operation):
    """Returns an output of a layer with the mask that the layer computes from its inputs.

    For a layer that is replaced by what its `call` calls: this knows nothing of a `compute_mask` of its own.

    Args:
        layer: the layer.
        index: of the output.
    """

    def __init__(self, layer: keras.layers.Layer, index: int = 0):
        super().__init__()
        self.layer = layer
        self.index = index

    def call(self, output: Any, inputs: Any) -> Any:
        if keras_mask(output) is not None:  # of a layer that `call` calls: Keras keeps it
            return output
        masks = tree.flatten(self.layer.compute_mask(inputs, tree.map_structure(keras_mask, inputs)))
        return set_mask(output, masks[self.index] if self.index < len(masks) else None)

    def compute_output_spec(self, output: Any, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(output.shape, output.dtype)
