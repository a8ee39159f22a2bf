"""Recurrent layers for which ONNX has no operator: their cell is traced for each step, and the calls are written.

So a custom cell may use layers and `keras.ops`, like the cells of ConvLSTM.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops, tree

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.composite import expand_composites
from tensorflow_quantization.export.onnx.registry import find_emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import is_convolutional
from tensorflow_quantization.model.recurrence import convolutional_step
from tensorflow_quantization.model.tracing import reason_of, trace_layer


class ForEachSample(keras.Operation):
    """Repeats the state of one sample, (1, ...), for all samples of a batch."""

    def call(self, state: Any, batch: Any) -> Any:
        return ops.broadcast_to(state, (ops.shape(batch)[0], *state.shape[1:]))

    def compute_output_spec(self, state: Any, batch: keras.KerasTensor) -> keras.KerasTensor:
        dtype = keras.backend.standardize_dtype(state.dtype)
        return keras.KerasTensor((batch.shape[0], *state.shape[1:]), dtype)


def trace_steps(layer: Any, x: Value, initial_state: Any, mask: Value | None, prefix: str) -> LayerGraph:
    """The graph of a recurrent layer, one call of its cell after the other.

    Args:
        layer: a `keras.layers.RNN`.
        x: its input, (batch, time, ...); the number of steps must be known.
        initial_state: structure of arrays and `Value`s; `None` for the initial state of the layer.
        mask: (batch, time), false for steps to skip; `None` to skip none.
        prefix: the start of the paths of the calls.

    Returns:
        A flat graph with the inputs `x`, the values of `initial_state`, and `mask`. Its outputs are the output of the
        last step, the states after it, and, if the layer returns sequences, the outputs of all steps in the order of
        time, (batch, time, ...).

    Raises:
        NotExpressibleError: Keras cannot trace the cell, or the cell calls a layer or operation without an emitter.
    """
    inputs: list[keras.KerasTensor] = []

    def as_input(value: Any) -> Any:
        if not isinstance(value, Value):
            return value
        inputs.append(keras.Input(batch_shape=value.shape, dtype=value.dtype))
        return inputs[-1]

    given = [as_input(x), tree.map_structure(as_input, initial_state), as_input(mask)]
    cell = type(layer.cell).__name__
    try:
        with _traceable_activations(layer.cell):
            graph = trace_layer(layer, lambda: _run(layer, *given), inputs, prefix)
        graph, reasons = expand_composites(graph.flatten())
    except Exception as error:
        raise NotExpressibleError(
            f"has a cell of class {cell}, which Keras cannot trace: {reason_of(error)}"
        ) from error
    for call in graph.calls:
        if find_emitter(call.operation) is None:
            why = f", and {reasons[call.path]}" if call.path in reasons else ""
            raise NotExpressibleError(
                f"has a cell of class {cell}, which uses {call.class_name}, which has no emitter{why}"
            )
    return graph


@contextlib.contextmanager
def _traceable_activations(cell: Any) -> Iterator[None]:
    """Makes a cell call its activations as layers: Keras cannot trace some activation functions, such as mish."""
    before = []
    for one in cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else [cell]:
        for name in ("activation", "recurrent_activation"):
            function = getattr(one, name, None)
            if inspect.isfunction(function) and find_emitter(function) is not None:
                before.append((one, name, function))
    try:
        for one, name, function in before:
            setattr(one, name, lambda x, function=function: keras.layers.Activation(function)(x))
        yield
    finally:
        for one, name, function in before:
            setattr(one, name, function)


def _run(layer: Any, x: keras.KerasTensor, initial_state: Any, mask: keras.KerasTensor | None) -> list[Any]:
    """What Keras' `rnn` computes. A masked step chooses between the old and the new state with `where`."""
    states = _initial_state(layer, x) if initial_state is None else initial_state
    states = tree.map_structure(lambda s: ops.convert_to_tensor(s, layer.cell.compute_dtype), _as_list(states))
    steps = ops.unstack(x, axis=1)
    counts = None if mask is None else ops.unstack(ops.cast(mask, "bool"), axis=1)
    outputs: list[Any] = [None] * len(steps)
    last = None
    for t in reversed(range(len(steps))) if layer.go_backwards else range(len(steps)):
        output, new = _step(layer.cell, steps[t], states)
        if counts is not None:
            kept = ops.zeros_like(output) if last is None or layer.zero_output_for_mask else last
            output = _choose(counts[t], output, kept)
            pairs = zip(tree.flatten(new), tree.flatten(states), strict=True)
            new = [_choose(counts[t], after, before) for after, before in pairs]
        states = tree.pack_sequence_as(states, tree.flatten(new))
        outputs[t] = last = output
    return [last, *tree.flatten(states), *([ops.stack(outputs, axis=1)] if layer.return_sequences else [])]


def _initial_state(layer: Any, x: keras.KerasTensor) -> Any:
    """The initial state of the layer for one sample, repeated for the batch, whose size is unknown."""
    return tree.map_structure(lambda state: ForEachSample()(state, x), layer.get_initial_state(batch_size=1))


def _step(cell: Any, x: Any, states: Any) -> tuple[Any, Any]:
    """Output and new states of a step.

    Uses `call`, not the cell itself: the shapes that a cell declares may be wrong, because Keras' loop ignores them.
    """
    if type(cell) is keras.layers.StackedRNNCells:
        after = []
        for one, of_one in zip(cell.cells, states, strict=True):
            x, new = _step(one, x, _as_list(of_one))
            after.append(new)
        return x, after
    if is_convolutional(cell):
        return convolutional_step(cell, x, states)
    return cell.call(x, states, **({"training": False} if "training" in cell.call_signature_parameters else {}))


def _as_list(states: Any) -> list[Any]:
    return list(states) if tree.is_nested(states) else [states]


def _choose(counts: Any, new: Any, old: Any) -> Any:
    """`new` for samples whose step is not masked, else `old`."""
    return ops.where(ops.reshape(counts, (-1, *[1] * (len(new.shape) - 1))), new, old)
