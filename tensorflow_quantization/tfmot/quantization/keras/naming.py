"""Names of the layers of a quantized model with another prefix than `quant_`."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, float_name
from tensorflow_quantization.wrappers.attention import ProjectedAttentionBaseQuantizeWrapper


def with_prefix(quantized: keras.Model, prefix: str) -> keras.Model:
    """Returns a copy of a quantized model whose wrappers are named after their layers, with `prefix`.

    Quantizers that are layers keep their names: without a prefix, they would have names of the layers before them.
    """
    graph = LayerGraph.trace(quantized)
    wrappers = [call for call in graph.flatten().calls if isinstance(call.operation, BaseQuantizeWrapper)]
    names = {call.name: f"{prefix}{float_name(call.name)}" for call in wrappers}

    def renamed(path: str) -> str:
        return "/".join(names.get(part, part) for part in path.split("/"))

    def rename(call: Call, copy: keras.Operation) -> list[keras.Operation]:
        copy.name = names.get(copy.name, copy.name)
        if hasattr(copy, "reasons"):
            copy.reasons = {renamed(path): reason for path, reason in copy.reasons.items()}
        if isinstance(copy, BaseQuantizeWrapper):
            copy.bias_input = copy.bias_input and renamed(copy.bias_input)
            copy.normalization = copy.normalization and renamed(copy.normalization)
        if isinstance(copy, ProjectedAttentionBaseQuantizeWrapper):
            copy.bias_inputs = tuple(path and renamed(path) for path in copy.bias_inputs)
        return [copy]

    return rewrite(graph, rename, compiled=False)
