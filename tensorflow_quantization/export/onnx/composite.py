"""Layers and functions that are made of layers and of `keras.ops`: they are traced, and what they call is written.

So a layer of the user's needs no emitter if `call` is such code. It is traced as it runs at inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.refusals import refusal
from tensorflow_quantization.export.onnx.registry import find_emitter
from tensorflow_quantization.export.onnx.values import Shape
from tensorflow_quantization.model.functional import names_of_its_own
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.interpreter import Interpreter, arguments_as_written
from tensorflow_quantization.model.keras_classes import keras_class_name
from tensorflow_quantization.model.tracing import reason_of, trace_call, unchanged
from tensorflow_quantization.wrappers import BaseQuantizeWrapper

#: Layers that hold a Python function, which may be code of the backend: nothing to look into.
OPAQUE = frozenset({"Lambda"})


def expand_composites(graph: LayerGraph) -> tuple[LayerGraph, dict[str, str]]:
    """Replace each layer without an emitter by the calls that its `call` is made of.

    Args:
        graph: flat; its calls and tensors become those of the result.

    Returns:
        The graph, and for each layer that stays without an emitter, by its path, why it cannot be looked into.
    """
    reasons: dict[str, str] = {}
    calls: list[Call] = []

    def expand(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The tensors in place of the outputs of a call; one call is written anew, or the calls that it is made of."""
        inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Tensor)]
        call = replace(call, args=args, kwargs=kwargs, inputs=inputs)
        traced = _trace(call, reasons)
        if traced is not None:
            inner, positions = traced
            return Interpreter(inner, arguments_as_written).run([inputs[i] for i in positions], expand)
        for tensor in call.outputs:
            tensor.producer = call
        calls.append(call)
        return call.outputs

    structure = Interpreter(graph, arguments_as_written).run(graph.inputs, expand)
    return (
        LayerGraph(graph.model, graph.inputs, tree.flatten(structure), graph.input_structure, structure, calls),
        reasons,
    )


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


def _trace(call: Call, reasons: dict[str, str]) -> tuple[LayerGraph, list[int]] | None:
    """The calls that a call is made of, and which input of the call each input of theirs is.

    `None` if the call has an emitter or cannot be looked into; why not goes to `reasons`.
    """
    operation = call.operation
    emitted = find_emitter(operation) is not None and not _quantizes_a_composite(operation)
    if emitted or not call.is_layer or keras_class_name(type(operation)) in OPAQUE or refusal(operation):
        return None
    try:
        traced, positions = trace_call(call)
        return traced.flatten(), positions
    except Exception as error:
        reasons[call.path] = f"Keras cannot trace its `call`: {reason_of(error)}"
        return None


def _quantizes_a_composite(operation: keras.Operation) -> bool:
    """Whether this is a wrapper whose layer has no emitter: then it is made of quantizers and that layer.

    Not if weights are quantized, which go into the layer by another way than its call.
    """
    if not isinstance(operation, BaseQuantizeWrapper) or operation.weight_quantizers:
        return False
    return find_emitter(operation.layer) is None
