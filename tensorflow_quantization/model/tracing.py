"""Trace one layer: its `call` runs on symbolic tensors, and the operations in it become a graph.

The layer stays unchanged: its variables keep their values, and the nodes that tracing adds are removed. A layer that
assigns to a variable when it runs, its random state for example, cannot be traced: the graph would miss the assignment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.functional import names_of_its_own
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.keras_internals import calling, global_random_state, removing_nodes
from tensorflow_quantization.model.made_arrays import MadeArrays, without_symbols
from tensorflow_quantization.model.own_weights import OwnWeights
from tensorflow_quantization.model.specs import with_true_specs
from tensorflow_quantization.text.messages import error_in_one_line


class UntraceableError(Exception):
    """The layer cannot be traced. The message is a clause that follows the name of the layer."""


def reason_of(error: Exception) -> str:
    """Returns a clause that says why tracing failed.

    Args:
        error: the exception that tracing raised.
    """
    return str(error) if isinstance(error, UntraceableError) else error_in_one_line(error)


def trace_call(
    call: Call,
    training: bool | None = False,
    scope: keras.StatelessScope | None = None,
    shapes: Sequence[tuple[int | None, ...]] | None = None,
    weights: OwnWeights | None = None,
    arrays: MadeArrays | None = None,
) -> tuple[LayerGraph, list[int]]:
    """Returns the graph of a layer's `call`, and the indices of the inputs that it reads.

    Args:
        call: the call of a layer.
        training: the `training` argument of the layer and its sublayers; `None` leaves it open. Default `False`.
        scope: see `trace_layer`.
        shapes: a shape for each of `call.inputs`; default `None`, their own shapes.
        weights: what the code of the layer gets as symbolic tensors; default `None`, its inputs only.
        arrays: notes the arrays that the code of the layer makes; default `None`.

    Returns:
        (graph, indices): input i of the graph is `call.inputs[indices[i]]`.

    Raises:
        Exception: of any type; the code of the layer raised it, so Keras cannot trace the layer.
    """
    layer: Any = call.operation
    known: dict[int, keras.KerasTensor] = {}
    given = {id(t): shape for t, shape in zip(call.inputs, shapes or [t.shape for t in call.inputs], strict=True)}

    def as_input(t: Tensor) -> keras.KerasTensor:
        if id(t) not in known:
            known[id(t)] = keras.Input(batch_shape=given[id(t)], dtype=t.dtype)
        return known[id(t)]

    args = substitute(call.args, as_input)
    kwargs = {k: v for k, v in substitute(call.kwargs, as_input).items() if k != "training"}
    if "training" in layer.call_signature_parameters:
        kwargs["training"] = training
    inputs = list(known.values())

    def compute() -> Any:
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(without_symbols(layer))
            contexts.enter_context(with_true_specs(layer))
            if weights:
                contexts.enter_context(weights.as_tensors(inputs[0]))
            if arrays:
                contexts.enter_context(arrays.noted(inputs[0]))
            return layer.call(*args, **kwargs)

    traced = trace_layer(layer, compute, inputs, f"{call.path}/", training, scope)
    positions = {key: i for i, key in reversed(list(enumerate(map(id, call.inputs))))}
    return traced, [positions[key] for key in known]


def trace_layer(
    layer: keras.layers.Layer,
    compute: Callable[[], Any],
    inputs: list[keras.KerasTensor],
    prefix: str = "",
    training: bool | None = False,
    scope: keras.StatelessScope | None = None,
) -> LayerGraph:
    """Returns the graph of the operations in a layer.

    Args:
        layer: the layer; its variables and its nodes stay unchanged.
        compute: calls the layer, or parts of it, on `inputs`, and returns the outputs.
        inputs: the symbolic inputs.
        prefix: str, put before the path of each call; default none.
        training: the `training` argument of sublayers that are called without it; default `False`.
        scope: the `keras.StatelessScope` that keeps the variables unchanged; `None` (default): a new scope.

    Raises:
        UntraceableError: an output does not come from Keras operations on `inputs`, or a variable was assigned to.
        Exception: of any other type; the code of the layer raised it, so Keras cannot trace the layer.
    """
    with names_of_its_own(layer), removing_nodes(layer), calling(layer, training), unchanged(layer, scope):
        outputs = compute()
        if any(y is None for y in tree.flatten(outputs)):  # as the place of something that is not asked for
            outputs = [y for y in tree.flatten(outputs) if y is not None]
        if not all(isinstance(y, keras.KerasTensor) for y in tree.flatten(outputs)):
            raise UntraceableError("it returns something that is not computed from its inputs by Keras operations")
        return LayerGraph.read(keras.Model(inputs, outputs, name=f"{layer.name}_trace"), prefix)


def computes_same(first: LayerGraph, second: LayerGraph) -> bool:
    """Returns whether two traces of a layer compute the same, apart from the argument `training` of sublayers."""
    return _structure(first) == _structure(second)


def _structure(graph: LayerGraph) -> tuple[Any, ...]:
    """What a graph computes, as a value that can be compared with another."""
    places = {id(t): i for i, t in enumerate(graph.inputs)}

    def place(tensor: Tensor) -> str:
        return f"tensor {places[id(tensor)]}"

    rows = []
    for call in graph.calls:
        kwargs = {key: value for key, value in call.kwargs.items() if key != "training"}
        operation = id(call.operation) if call.is_layer else (call.class_name, repr(call.operation.get_config()))
        rows.append((operation, repr(substitute((call.args, kwargs), place))))
        for tensor in call.outputs:
            places[id(tensor)] = len(places)
    return rows, [place(t) for t in graph.outputs]


@contextlib.contextmanager
def unchanged(layer: Any, scope: keras.StatelessScope | None = None) -> Iterator[None]:
    """Keeps variables unchanged within the context.

    Raises:
        UntraceableError: the code in the context assigned to a variable of the layer, or to the global random state.
    """
    with scope or keras.StatelessScope() as scope:
        yield
    changed = changed_variables(layer, scope)
    if changed:
        raise UntraceableError(changes(changed))


def changed_variables(operation: keras.Operation, scope: keras.StatelessScope) -> list[str]:
    """Returns the paths of the variables that an operation assigned to in a scope, random states included."""
    variables = [*getattr(operation, "variables", []), global_random_state()]
    return [v.path for v in variables if scope.get_current_value(v) is not None]


def changes(variables: list[str]) -> str:
    """Returns the reason why an operation that assigns to variables cannot be exported."""
    return f"it changes {variables[0]} while it runs, at inference too"
