"""Layers and functions that are made of layers and of `keras.ops`: they are traced, and what they call is written.

So a layer of the user's needs no emitter if `call` is such code. It is traced as it runs at inference, under a scope
that keeps its variables as they are; a layer that changes one while it runs, its random state for example, is not made
of what it calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras
from keras import tree
from keras.src.backend.common import global_state  # has no public name
from keras.src.layers.layer import CallContext  # has no public name
from keras.src.models.functional import Functional  # has no public name
from keras.src.random.seed_generator import global_seed_generator  # has no public name

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.refusals import refusal
from tensorflow_quantization.export.registry import find_emitter
from tensorflow_quantization.export.values import Shape
from tensorflow_quantization.functional import names_of_its_own, removing_nodes
from tensorflow_quantization.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.wrappers import BaseQuantizeWrapper

#: Layers that hold a Python function, which may be code of the backend: nothing to look into.
OPAQUE = frozenset({"Lambda"})
_CONTEXT = "current_call_ctx"


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
        with names_of_its_own(), _unchanged(function):
            x = keras.Input(batch_shape=shape, dtype=dtype)
            functional = Functional(x, function(x), name=f"{name}_trace")
            return LayerGraph.read(functional, prefix=f"{name}/").flatten()
    except Exception as error:
        raise NotExpressibleError(
            f"uses {name}, which has no emitter and which Keras cannot trace: {reason_of(error)}"
        ) from error


def _expand(call: Call, replaced: dict[int, Tensor], reasons: dict[str, str]) -> list[Call]:
    """The calls that a call is made of; itself if it has an emitter or cannot be looked into."""
    operation = call.operation
    emitted = find_emitter(operation) is not None and not _quantizes_a_composite(operation)
    if emitted or not call.is_layer or call.class_name in OPAQUE or refusal(operation):
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


def reason_of(error: Exception) -> str:
    """Why Keras cannot trace something, a clause, from what was raised."""
    first = str(error).strip().split("\n")[0]
    return first if isinstance(error, _UntraceableError) else f"{type(error).__name__}: {first}"


class _UntraceableError(Exception):
    """A clause that follows the layer's name."""


def trace_call(call: Call) -> tuple[LayerGraph, list[int]]:
    """The graph of a layer's `call`, and which input of the call each of its inputs is.

    Raises:
        Exception: of any kind, as the code of the layer raises it; Keras cannot trace it.
    """
    layer: Any = call.operation
    known: dict[int, keras.KerasTensor] = {}

    def as_input(t: Tensor) -> keras.KerasTensor:
        if id(t) not in known:
            known[id(t)] = keras.Input(batch_shape=t.shape, dtype=t.dtype)
        return known[id(t)]

    args = substitute(call.args, as_input)
    kwargs = {k: v for k, v in substitute(call.kwargs, as_input).items() if k != "training"}
    if "training" in layer._call_signature.parameters:
        kwargs["training"] = False
    traced = trace_layer(layer, lambda: layer.call(*args, **kwargs), list(known.values()), f"{call.path}/")
    positions = {key: i for i, key in reversed(list(enumerate(map(id, call.inputs))))}
    return traced, [positions[key] for key in known]


def trace_layer(
    layer: keras.layers.Layer, compute: Callable[[], Any], inputs: list[keras.KerasTensor], prefix: str = ""
) -> LayerGraph:
    """The graph of what a layer computes at inference.

    Args:
        layer: it; neither its variables nor its nodes change.
        compute: calls it, or parts of it, on `inputs`.
        prefix: what the paths of the calls start with.

    Raises:
        Exception: of any kind, as the code of the layer raises it; Keras cannot trace it.
    """
    with names_of_its_own(layer), removing_nodes(layer), _at_inference(layer), _unchanged(layer):
        outputs = compute()
        if not all(isinstance(y, keras.KerasTensor) for y in tree.flatten(outputs)):
            raise _UntraceableError("it returns something that is not computed from its inputs by Keras operations")
        return LayerGraph.read(Functional(inputs, outputs, name=f"{layer.name}_trace"), prefix)


@contextlib.contextmanager
def _at_inference(layer: keras.layers.Layer) -> Iterator[None]:
    """What sublayers ask for `training` when nobody tells them: that the call around them is no training."""
    before = global_state.get_global_attribute(_CONTEXT)
    context = CallContext(entry_layer=layer)
    context.training = False
    global_state.set_global_attribute(_CONTEXT, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(_CONTEXT, before)


@contextlib.contextmanager
def _unchanged(layer: Any) -> Iterator[None]:
    """Keeps variables as they are, and raises if the layer or function would have changed one.

    Raises:
        _UntraceableError: then what was traced is what happened once, not what the layer does.
    """
    with keras.StatelessScope() as scope:
        yield
    changed = changed_variables(layer, scope)
    if changed:
        raise _UntraceableError(changes(changed))


def changed_variables(operation: keras.Operation, scope: keras.StatelessScope) -> list[str]:
    """The paths of the variables that an operation assigned to in a scope, its random state among them."""
    variables = [*getattr(operation, "variables", []), global_seed_generator().state]
    return [v.path for v in variables if scope.get_current_value(v) is not None]


def changes(variables: list[str]) -> str:
    """The reason not to write an operation that changes variables."""
    return f"it changes {variables[0]} while it runs, at inference too"
