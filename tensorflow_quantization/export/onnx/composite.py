"""Layers and functions that are made of layers and of `keras.ops`: they are traced, and what they call is written.

So a layer of the user's needs no emitter if `call` is such code. It is traced as it runs at inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.refusals import refusal
from tensorflow_quantization.export.onnx.registry import find_emitter
from tensorflow_quantization.export.onnx.values import Shape
from tensorflow_quantization.model.functional import names_of_its_own
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.keras_classes import keras_class_name
from tensorflow_quantization.model.tracing import reason_of, trace_call, unchanged
from tensorflow_quantization.wrappers import BaseQuantizeWrapper

#: Layers that hold a Python function, which may be code of the backend: nothing to look into.
OPAQUE = frozenset({"Lambda"})


def expand_composites(graph: LayerGraph) -> tuple[LayerGraph, dict[str, str]]:
    """Put in the place of each layer without an emitter what its `call` is made of.

    Args:
        graph: flat; its calls and tensors become those of the result.

    Returns:
        The graph, and for each layer that stays without an emitter, by its path, why it cannot be looked into.
    """
    reasons: dict[str, str] = {}
    replaced: dict[int, Tensor] = {}
    calls: list[Call] = []
    for call in graph.calls:
        calls += _expand(_rewired(call, replaced), replaced, reasons)
    if len(calls) == len(graph.calls) and not replaced:
        return graph, reasons

    def current(t: Tensor) -> Tensor:
        return replaced.get(id(t), t)

    outputs = [current(t) for t in graph.outputs]
    structure = substitute(graph.output_structure, current)
    return LayerGraph(graph.model, graph.inputs, outputs, graph.input_structure, structure, calls), reasons


def trace_function(function: Callable[[Any], Any], shape: Shape, dtype: str) -> LayerGraph:
    """The graph of a function of one tensor, an activation of the user's own.

    Args:
        function: it.
        shape, dtype: of the tensor.

    Raises:
        NotExpressibleError: Keras cannot trace it; with the reason.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        with names_of_its_own(), unchanged(function):
            x = keras.Input(batch_shape=shape, dtype=dtype)
            functional = keras.Model(x, function(x), name=f"{name}_trace")
            return LayerGraph.read(functional, prefix=f"{name}/").flatten()
    except Exception as error:
        raise NotExpressibleError(
            f"uses {name}, which has no emitter and which Keras cannot trace: {reason_of(error)}"
        ) from error


def _expand(call: Call, replaced: dict[int, Tensor], reasons: dict[str, str]) -> list[Call]:
    """The calls that a call is made of; itself if it has an emitter or cannot be looked into."""
    operation = call.operation
    emitted = find_emitter(operation) is not None and not _quantizes_a_composite(operation)
    if emitted or not call.is_layer or keras_class_name(type(operation)) in OPAQUE or refusal(operation):
        return [call]
    try:
        traced, inputs = trace_call(call)
        # One level only: what a sublayer without an emitter is made of is found in the same way.
        inner, inner_reasons = expand_composites(traced.flatten())
    except Exception as error:
        reasons[call.path] = f"Keras cannot trace its `call`: {reason_of(error)}"
        return [call]
    reasons.update(inner_reasons)
    known = {id(x): call.inputs[i] for x, i in zip(inner.inputs, inputs, strict=True)}
    calls = [_rewired(inner_call, known) for inner_call in inner.calls]
    for old, new in zip(call.outputs, inner.outputs, strict=True):
        replaced[id(old)] = known.get(id(new), new)
    return calls


def _quantizes_a_composite(operation: keras.Operation) -> bool:
    """Whether this is a wrapper whose layer has no emitter: then it is made of quantizers and that layer.

    Not if weights are quantized, which go into the layer by another way than its call.
    """
    if not isinstance(operation, BaseQuantizeWrapper) or operation.weight_quantizers:
        return False
    return find_emitter(operation.layer) is None


def _rewired(call: Call, replaced: dict[int, Tensor]) -> Call:
    """The call with other tensors as its inputs."""
    if not any(id(t) in replaced for t in call.inputs):
        return call

    def current(t: Tensor) -> Tensor:
        return replaced.get(id(t), t)

    new = replace(
        call,
        args=substitute(call.args, current),
        kwargs=substitute(call.kwargs, current),
        inputs=[current(t) for t in call.inputs],
    )
    for tensor in new.outputs:
        tensor.producer = new
    return new
