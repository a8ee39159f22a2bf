"""Replaces layers without an emitter by the layers and operations that they call, found by tracing.

So a custom layer needs no emitter if its `call` uses layers and `keras.ops` only. It is traced with `training=False`.
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
from tensorflow_quantization.model.masking import (
    MaskOf,
    computes_own_mask,
    first_argument,
    mask_parameters,
    masked_calls,
)
from tensorflow_quantization.model.sampling import trace_with_sizes
from tensorflow_quantization.model.tracing import reason_of, unchanged
from tensorflow_quantization.wrappers import BaseQuantizeWrapper

#: Layers that hold a Python function, which may be code of the backend: they are not traced.
OPAQUE = frozenset({"Lambda"})


def expand_composites(graph: LayerGraph) -> tuple[LayerGraph, dict[str, str]]:
    """Replace each layer without an emitter by the layers and operations that its `call` calls.

    Args:
        graph: flat. The result uses its calls and tensors, so do not use it again.

    Returns:
        The new graph, and the reasons why layers without an emitter could not be traced, by path.
    """
    reasons: dict[str, str] = {}
    calls: list[Call] = []
    reached = masked_calls(graph)

    def masked(call: Call, outputs: Any) -> Any:
        """The outputs of a call that was replaced, with the masks that the layer computes."""
        first, found = first_argument(call), []
        for index, output in enumerate(tree.flatten(outputs)):
            inputs = [output, *(x for x in tree.flatten(first) if isinstance(x, Tensor))]
            path = f"{call.path}/mask_{index}"
            following = Call(MaskOf(call.operation, index), path, (output, first), {}, inputs, [])
            following.outputs.append(Tensor(output.shape, output.dtype, path, following))
            calls.append(following)
            found += following.outputs
        return tree.pack_sequence_as(outputs, found)

    def expand(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The outputs of a call in the new graph, to which this function appends the call or what replaces it."""
        inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Tensor)]
        call = replace(call, args=args, kwargs=kwargs, inputs=inputs)
        traced = _trace(call, reasons, reached)
        if traced is not None:
            inner, positions = traced
            outputs = Interpreter(inner, arguments_as_written).run([inputs[i] for i in positions], expand)
            return masked(call, outputs) if computes_own_mask(call.operation) else outputs
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
    """The graph of a function of one tensor, such as a custom activation.

    Args:
        function: the function.
        shape, dtype: shape and dtype of the tensor.

    Raises:
        NotExpressibleError: Keras cannot trace the function; the message has the reason.
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


def _trace(call: Call, reasons: dict[str, str], masked: set[str]) -> tuple[LayerGraph, list[int]] | None:
    """The graph inside a layer's call, and for each input of that graph the index of the call's input.

    Returns `None` if the call has an emitter or cannot be traced; the second case adds the reason to `reasons`.
    """
    operation = call.operation
    emitted = find_emitter(operation) is not None and not _quantizes_a_composite(operation)
    if emitted or not call.is_layer or keras_class_name(type(operation)) in OPAQUE or refusal(operation):
        return None
    if call.path in masked and (reads := mask_parameters(call)):
        reasons[call.path] = f"its `call` reads the mask that Keras passes as {next(iter(reads))!r}"
        return None
    try:
        traced, positions = trace_with_sizes(call)
        return traced.flatten(), positions
    except Exception as error:
        reasons[call.path] = f"Keras cannot trace its `call`: {reason_of(error)}"
        if any(None in tensor.shape[1:] for tensor in call.inputs):
            reasons[call.path] += (
                ". An input has axes of unknown size, so `keras.ops.shape` returns None for them: export a model with "
                "the same weights whose keras.Input has known sizes"
            )
        return None


def _quantizes_a_composite(operation: keras.Operation) -> bool:
    """Whether this is a wrapper that can be traced: its layer has no emitter, and it quantizes no weights.

    Tracing a wrapper finds its activation quantizers and its layer. It does not find quantized weights, because the
    layer does not get them as arguments of its call.
    """
    if not isinstance(operation, BaseQuantizeWrapper) or operation.weight_quantizers:
        return False
    return find_emitter(operation.layer) is None
