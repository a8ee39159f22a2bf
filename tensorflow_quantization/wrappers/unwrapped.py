"""`unwrapped`: replaces each wrapper in a graph by the layer and the quantizers in it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.wrappers.base import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.queries import inner_layer


def unwrapped(graph: LayerGraph) -> tuple[LayerGraph, dict[int, Call]]:
    """Returns a graph with separate calls for the input quantizers, the layer and the output quantizer of each wrapper.

    Args:
        graph: the flat graph of a quantized model.

    Returns:
        (new graph, {id of a call of `graph`: the call of its layer in the new graph}).
    """
    calls: list[Call] = []
    layers: dict[int, Call] = {}
    tensors = {id(t): replace(t) for t in graph.inputs}

    def quantized(tensor: Tensor, quantizer: keras.layers.Layer | None, path: str) -> Tensor:
        if quantizer is None:
            return tensor
        output = replace(tensor, index=0, source=None)
        output.producer = Call(quantizer, f"{path}/{quantizer.name}", (tensor,), {}, [tensor], [output])
        calls.append(output.producer)
        return output

    for call in graph.calls:
        wrapper = call.operation if isinstance(call.operation, BaseQuantizeWrapper) else None
        read = {id(t): tensors[id(t)] for t in call.inputs}
        if wrapper is not None:
            # Not strict: the states of a recurrent layer have no quantizers.
            for t, quantizer in zip(call.operands, wrapper.input_quantizers, strict=False):
                read[id(t)] = quantized(tensors[id(t)], quantizer, call.path)
        args, kwargs, inputs = (substitute(x, partial(_at, read)) for x in (call.args, call.kwargs, call.inputs))
        layer = Call(inner_layer(call.operation), call.path, args, kwargs, inputs, [])
        layer.outputs = [replace(t, producer=layer) for t in call.outputs]
        calls.append(layer)
        layers[id(call)] = layer
        first, *others = layer.outputs
        if wrapper is not None:
            first = quantized(first, wrapper.output_quantizer, call.path)
        tensors.update((id(old), new) for old, new in zip(call.outputs, [first, *others], strict=True))

    new = partial(_at, tensors)
    return (
        LayerGraph(
            graph.model,
            substitute(graph.inputs, new),
            substitute(graph.outputs, new),
            substitute(graph.input_structure, new),
            substitute(graph.output_structure, new),
            calls,
        ),
        layers,
    )


def _at(tensors: dict[int, Tensor], tensor: Tensor) -> Tensor:
    return tensors[id(tensor)]
