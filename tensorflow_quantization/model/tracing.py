"""What one layer computes, as a graph: its `call` is run on symbolic tensors, and the layer stays as it was.

Its variables keep their values, and it gets no nodes. A layer that changes one while it runs, its random state for
example, is not made of what it calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.functional import names_of_its_own
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.keras_internals import calling, global_random_state, removing_nodes


class UntraceableError(Exception):
    """A clause that follows the layer's name."""


def reason_of(error: Exception) -> str:
    """Why Keras cannot trace something, a clause, from what was raised."""
    first = str(error).strip().split("\n")[0]
    return first if isinstance(error, UntraceableError) else f"{type(error).__name__}: {first}"


def trace_call(
    call: Call,
    training: bool | None = False,
    scope: keras.StatelessScope | None = None,
    batch: int | None = None,
) -> tuple[LayerGraph, list[int]]:
    """The graph of a layer's `call`, and which input of the call each of its inputs is.

    Args:
        call: of a layer.
        training: as which its sublayers are called; `None` leaves it to those who call them.
        scope: in which it is traced, see `trace_layer`.
        batch: the batch size where that is dynamic.

    Raises:
        Exception: of any kind, as the code of the layer raises it; Keras cannot trace it.
    """
    layer: Any = call.operation
    known: dict[int, keras.KerasTensor] = {}

    def as_input(t: Tensor) -> keras.KerasTensor:
        if id(t) not in known:
            size = batch if t.shape[0] is None else t.shape[0]
            known[id(t)] = keras.Input(batch_shape=(size, *t.shape[1:]), dtype=t.dtype)
        return known[id(t)]

    args = substitute(call.args, as_input)
    kwargs = {k: v for k, v in substitute(call.kwargs, as_input).items() if k != "training"}
    if "training" in layer.call_signature_parameters:
        kwargs["training"] = training
    inputs = list(known.values())
    traced = trace_layer(layer, lambda: layer.call(*args, **kwargs), inputs, f"{call.path}/", training, scope)
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
    """The graph of what a layer computes, at inference unless `training` says otherwise.

    Args:
        layer: it; neither its variables nor its nodes change.
        compute: calls it, or parts of it, on `inputs`.
        prefix: what the paths of the calls start with.
        training: what sublayers ask for when nobody tells them.
        scope: the scope that keeps the variables as they are; a new one if left out.

    Raises:
        Exception: of any kind, as the code of the layer raises it; Keras cannot trace it.
    """
    with names_of_its_own(layer), removing_nodes(layer), calling(layer, training), unchanged(layer, scope):
        outputs = compute()
        if not all(isinstance(y, keras.KerasTensor) for y in tree.flatten(outputs)):
            raise UntraceableError("it returns something that is not computed from its inputs by Keras operations")
        return LayerGraph.read(keras.Model(inputs, outputs, name=f"{layer.name}_trace"), prefix)


@contextlib.contextmanager
def unchanged(layer: Any, scope: keras.StatelessScope | None = None) -> Iterator[None]:
    """Keeps variables as they are, and raises if the layer or function would have changed one.

    Raises:
        UntraceableError: then what was traced is what happened once, not what the layer does.
    """
    with scope or keras.StatelessScope() as scope:
        yield
    changed = changed_variables(layer, scope)
    if changed:
        raise UntraceableError(changes(changed))


def changed_variables(operation: keras.Operation, scope: keras.StatelessScope) -> list[str]:
    """The paths of the variables that an operation assigned to in a scope, its random state among them."""
    variables = [*getattr(operation, "variables", []), global_random_state()]
    return [v.path for v in variables if scope.get_current_value(v) is not None]


def changes(variables: list[str]) -> str:
    """The reason not to write an operation that changes variables."""
    return f"it changes {variables[0]} while it runs, at inference too"
