"""What the wrapper of each product needs to round its bias: the quantizer of its input, and a folded normalization.

An integer kernel stores its bias in steps of input scale times weight scale (`wrappers/bias.py`). So the bias depends
on two neighbours of the product: the quantizer whose scale its input has, and a normalization that is folded into its
kernel. This module finds both in the graph; the wrapper keeps their names in its config.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import keras

from tensorflow_quantization.model.fusion import folded_into
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.quantize.plan import LayerPlan, QuantizationPlan
from tensorflow_quantization.wrappers import quantized_name


def plan_bias_rounding(graph: LayerGraph, plan: QuantizationPlan) -> QuantizationPlan:
    """The plan with `bias_input` and `normalization` set for each layer whose weights are quantized.

    Attention has `bias_inputs`, if its projections are quantized.

    Args:
        graph: the graph of the model, not flattened: a wrapper looks up its neighbours in the model that directly
            holds it and in models nested there.
        plan: the plan for the same graph, flattened.
    """
    calls: dict[str, list[tuple[LayerGraph, Call]]] = defaultdict(list)
    for inner in _graphs(graph):
        for call in inner.calls:
            calls[call.path].append((inner, call))
    scales = _Scales(graph, plan)
    layers = dict(plan.layers)
    for path, layer in plan.layers.items():
        if layer.weights and layer.wrapper is not None and all(len(call.operands) == 1 for _, call in calls[path]):
            layers[path] = replace(
                layer,
                bias_input=None if layer.inputs else scales.of_all([call.operands[0] for _, call in calls[path]]),
                normalization=_normalization(calls[path], plan),
            )
        elif layer.weights and layer.placement.projections and len({len(c.operands) for _, c in calls[path]}) == 1:
            found = zip(*(call.operands for _, call in calls[path]), strict=True)
            sources = [None if i in layer.inputs else scales.of_all(list(xs)) for i, xs in enumerate(found)]
            layers[path] = replace(layer, bias_inputs=tuple(sources))
    return QuantizationPlan(layers)


def _graphs(graph: LayerGraph) -> list[LayerGraph]:
    """The graph and the graphs of nested models, each once."""
    found = {id(graph): graph}
    for call in graph.calls:
        if call.subgraph is not None:
            found.update((id(inner), inner) for inner in _graphs(call.subgraph))
    return list(found.values())


class _Scales:
    """Finds the layer whose quantizer sets the scale of a tensor: its name, or its path if a nested model holds it."""

    def __init__(self, graph: LayerGraph, plan: QuantizationPlan):
        self.plan = plan
        self.inputs = {id(tensor) for tensor in graph.inputs}

    def of_all(self, tensors: list[Tensor]) -> str | None:
        """The layer that sets the scale of all these tensors; `None` if several do, or none does."""
        found = {self.of(tensor) for tensor in tensors}
        return found.pop() if len(found) == 1 else None

    def of(self, tensor: Tensor) -> str | None:
        """The layer that sets the scale of `tensor`; `None` if `tensor` is float."""
        call = tensor.producer
        if call is None:
            planned = self.plan.layers.get(tensor.name) if id(tensor) in self.inputs else None
            return quantized_name(tensor.name) if planned is not None and planned.output else None
        if call.subgraph is not None:
            inside = self.of(call.subgraph.outputs[tensor.index])
            return f"{call.name}/{inside}" if inside is not None else None
        layer = self.plan[call.path]
        if layer.output:
            return quantized_name(f"{call.name}_activation" if layer.placement.pre_activation else call.name)
        if layer.placement.pre_activation or Trait.MOVES_DATA not in traits(call) or len(call.inputs) != 1:
            return None
        if layer.inputs:
            return quantized_name(call.name if layer.wrapper is not None else f"{call.name}_input_0")
        return self.of(call.inputs[0])


def _normalization(calls: list[tuple[LayerGraph, Call]], plan: QuantizationPlan) -> str | None:
    """The name, in the quantized model, of the normalization that is folded into a layer; `None` if there is none.

    Args:
        calls: the calls of the layer, each with the graph that holds it.
        plan: the plan for the whole model.
    """
    call = calls[0][1]
    layer = plan[call.path]
    if layer.output or layer.placement.pre_activation:
        return None
    reader = calls[0][0].only_reader(call.outputs[0])
    if (
        reader is None
        or Trait.NORMALIZES not in traits(reader)
        or not all(_is_folded(reader.operation, *found) for found in calls)
    ):
        return None
    after: LayerPlan = plan[reader.path]
    if after.inputs:
        return None
    return quantized_name(reader.name) if after.quantized else reader.name


def _is_folded(normalization: keras.Operation, graph: LayerGraph, call: Call) -> bool:
    """Whether `normalization` reads the output of `call` and is folded into it."""
    reader = graph.only_reader(call.outputs[0])
    return reader is not None and reader.operation is normalization and folded_into(graph, reader) is call
