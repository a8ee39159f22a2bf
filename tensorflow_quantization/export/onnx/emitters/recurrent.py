"""Recurrent layers and Bidirectional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masked_sequences import MaskedSequences
from tensorflow_quantization.export.onnx.emitters._recurrence import Recurrence, emit_recurrence
from tensorflow_quantization.export.onnx.emitters.convolution import kernel_order, kernel_to_onnx
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.unrolling import ForEachSample, trace_steps
from tensorflow_quantization.export.onnx.values import Order, Value, channels_first
from tensorflow_quantization.model.recurrence import cells_of
from tensorflow_quantization.model.weights import variable_of

#: (time, batch, features), the order of inputs and outputs of ONNX' recurrent operators.
TIME_FIRST = (1, 0, 2)


@dataclass(frozen=True)
class Ran:
    """The results of a recurrent layer.

    Attributes:
        sequence: all outputs (batch, time, ...), in the order of time; `None` if the layer does not return sequences.
        last: the output of the last step.
        states: the states after the last step, (batch, ...) each.
    """

    sequence: Value | None
    last: Value
    states: list[Value]


@emitter("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def recurrent(e: Emission, layer, x: Value, initial_state: Any = None, mask: Value | None = None) -> Any:
    check_stateless(layer)
    ran = run_layer(e, layer, x, initial_state, None if mask is None else MaskedSequences(e, mask))
    y = ran.last if ran.sequence is None else ran.sequence
    if ran.sequence is not None and layer.go_backwards:
        y = reversed_in_time(e, y)
    return [y, *ran.states] if layer.return_state else y


def check_stateless(layer: Any) -> None:
    """Raises: NotExpressibleError: the layer is stateful."""
    if layer.stateful:
        raise NotExpressibleError(
            "has stateful=True, and a file stores no state between runs; pass the state as an input "
            "(initial_state=...) and return it (return_state=True)"
        )


def run_layer(
    e: Emission, layer: Any, x: Value, initial_state: Any, masked: MaskedSequences | None, inner: str = ""
) -> Ran:
    """Append one recurrent operator per cell of the layer, or the calls of each step if ONNX has no such operator."""
    stack = isinstance(layer.cell, keras.layers.StackedRNNCells)
    within = f"{inner}_layer." if inner else ""
    cells = {f"cell.cells.{i}": cell for i, cell in enumerate(layer.cell.cells)} if stack else {"cell": layer.cell}
    try:
        recurrences = [Recurrence.of(cell, f"{within}{path}", e.builder.target) for path, cell in cells.items()]
        if masked is not None:
            masked.check(recurrences, layer.return_state)
    except NotExpressibleError as error:
        if x.shape[1] is None:
            raise type(error)(
                f"{error}; to write other cells step by step, build the model for a fixed number of steps"
            ) from error
        return _run_steps(e, layer, x, initial_state, None if masked is None else masked.mask, inner)
    given = _initial_states(initial_state, [r.states for r in recurrences])
    states: list[Value] = []
    last: list[ir.Value] = []
    backwards = layer.go_backwards
    current = x if masked is None else masked.compress(x, backwards)
    for i, recurrence in enumerate(recurrences):
        name = "/".join(part for part in (inner, f"cell_{i}" if stack else "") if part)
        initial = None if given is None else given[i]
        lengths = None
        if masked is not None:
            lengths = masked.lengths(recurrence, layer.return_state)
            recurrence, current = masked.holding(recurrence, current, layer.return_state)
        y, last = emit_recurrence(
            e,
            [recurrence],
            e.arrange(current, TIME_FIRST),
            None if initial is None else [initial],
            lengths,
            backwards and masked is None,
            name,
        )
        current = _sequence(x, _squeeze(e, y, 1), recurrence.units)
        last = [_squeeze(e, s, 0) for s in last]
        if masked is not None:
            last[0] = masked.last(current)
            last = [masked.begun(s, None if initial is None else initial[j]) for j, s in enumerate(last)]
        states += [_state(x, s, recurrence.units) for s in last]
    # The output of a cell is its first state.
    final = states[-len(last)]
    sequence = current if layer.return_sequences else None
    if masked is None:
        return Ran(sequence, final, states)
    if given is not None:
        # Without an unmasked step, the state is the initial state, and the output is zero.
        final = final.with_onnx(masked.begun(final.onnx, None))
    zero = getattr(layer, "zero_output_for_mask", False)
    if sequence is not None:
        sequence = masked.spread(sequence, backwards, zero)
    return Ran(sequence, masked.zero_last(final, backwards) if zero else final, states)


def _run_steps(e: Emission, layer: Any, x: Value, initial_state: Any, mask: Value | None, inner: str) -> Ran:
    """Append the calls of the cell, step by step."""
    # A cell may compute with parts of its weights, which it then takes from their values in the file.
    with keras.StatelessScope([(v, keras.ops.convert_to_tensor(a, v.dtype)) for v, a in e.stored_weights()]):
        graph = trace_steps(layer, x, initial_state, mask, f"{inner}/" if inner else "")
    within = f"{inner}_layer." if inner else ""
    names = [f"{within}{path}.{name}" for path in cells_of(layer) for name in ("kernel", "recurrent_kernel")]
    constants = {
        id(variable_of(e.operation, name)): _stored_kernel(e, name, name.removeprefix(within))
        for name in names
        if e.is_quantized(name)
    }
    given = [s for s in keras.tree.flatten(initial_state) if isinstance(s, Value)]
    if getattr(layer, "data_format", None) == "channels_last":
        x = e.arrange(x, _each_channels_first(x.rank))
    last, *states = e.emit_graph(graph, x, *given, *([] if mask is None else [mask]), constants=constants)
    return Ran(states.pop() if layer.return_sequences else None, last, states)


def _stored_kernel(e: Emission, name: str, stored_as: str) -> Value:
    """A quantized kernel of a cell; of a convolution, it is stored as ONNX' Conv reads it."""
    shape = tuple(variable_of(e.operation, name).shape)
    if len(shape) == 2:
        return Value(e.weight(name, axis=1, stored_as=stored_as), shape)
    return Value(e.weight(name, kernel_to_onnx, axis=0, stored_as=stored_as), shape, order=kernel_order(len(shape)))


def _each_channels_first(rank: int) -> Order:
    """The order that stores a sequence of images as (batch, time, channels, ...)."""
    return (0, 1, *(a + 1 for a in channels_first(rank - 1)[1:]))


@emitter(ForEachSample, layout="any")
def for_each_sample(e: Emission, operation, state: Any, batch: Value) -> ir.Value:
    state = e.value(state, e.outputs[0].dtype)
    count = e.op("Gather", e.op("Shape", batch), np.asarray([batch.position(0)], np.int64))
    return e.op("Expand", state, e.op("Concat", count, np.ones(state.rank - 1, np.int64), axis=0))


def _initial_states(initial_state: Any, counts: Sequence[int]) -> list[list[Value]] | None:
    if initial_state is None:
        return None
    flat = iter(keras.tree.flatten(initial_state))
    return [[next(flat) for _ in range(count)] for count in counts]


def _squeeze(e: Emission, x: ir.Value, axis: int) -> ir.Value:
    return e.op("Squeeze", x, np.asarray([axis], np.int64))


def _sequence(like: Value, onnx: ir.Value, units: int) -> Value:
    return Value(onnx, (*like.shape[:2], units), "float32", TIME_FIRST)


def _state(like: Value, onnx: ir.Value, units: int) -> Value:
    return Value(onnx, (like.shape[0], units))


def reversed_in_time(e: Emission, x: Value) -> Value:
    """(batch, time, ...) with the last step first."""
    limits = np.iinfo(np.int64)
    numbers = [np.asarray([n], np.int64) for n in (-1, limits.min + 1, x.position(1), -1)]
    return x.with_onnx(e.op("Slice", x, *numbers))


@emitter("Bidirectional")
def bidirectional(e: Emission, layer, x: Value, initial_state: Any = None, mask: Value | None = None) -> Any:
    forward, backward = layer.forward_layer, layer.backward_layer
    for one in (forward, backward):
        if not isinstance(one, keras.layers.RNN) or not isinstance(getattr(one, "cell", None), keras.layers.Layer):
            raise NotExpressibleError(f"wraps a {type(one).__name__}; recurrent layers with cells are exported")
        check_stateless(one)
    if forward.go_backwards or not backward.go_backwards:
        raise NotExpressibleError("has a forward layer that runs backwards")
    masked = None if mask is None else MaskedSequences(e, mask)
    given = list(initial_state) if initial_state is not None else None
    halves = (None, None) if given is None else (given[: len(given) // 2], given[len(given) // 2 :])
    joined = _joined(e, forward, backward, x, halves) if masked is None else None
    if joined is None:
        joined = (
            run_layer(e, forward, x, halves[0], masked, "forward"),
            run_layer(e, backward, x, halves[1], masked, "backward"),
        )
    first, second = joined
    merged = _merge(e, layer.merge_mode, [ran.last if ran.sequence is None else ran.sequence for ran in joined])
    if not layer.return_state:
        return merged if len(merged) > 1 else merged[0]
    return [*merged, *first.states, *second.states]


def _joined(e: Emission, forward: Any, backward: Any, x: Value, given: tuple) -> tuple[Ran, Ran] | None:
    """Both directions with one bidirectional operator; `None` if one operator cannot compute both."""
    try:
        both = [
            Recurrence.of(half.cell, f"{name}_layer.cell", e.builder.target)
            for name, half in (("forward", forward), ("backward", backward))
        ]
    except NotExpressibleError:
        return None
    if not both[0].joins(both[1]):
        return None
    initial = None if given[0] is None else [list(given[0]), list(given[1])]
    y, last = emit_recurrence(e, both, e.arrange(x, TIME_FIRST), initial)
    units = both[0].units
    sequences = [_sequence(x, _squeeze(e, part, 1), units) for part in e.split(y, [1, 1], axis=1)]
    halves = [[_state(x, _squeeze(e, part, 0), units) for part in e.split(s, [1, 1], axis=0)] for s in last]
    first, second = ([pair[i] for pair in halves] for i in range(2))
    shown = sequences if forward.return_sequences else [None, None]
    return Ran(shown[0], first[0], first), Ran(shown[1], second[0], second)


def _merge(e: Emission, mode: str | None, pair: list[Value]) -> list[Value]:
    first, second = pair
    if mode is None:
        return pair
    second = e.arrange(second, first.order)
    if mode == "concat":
        units = (first.shape[-1] or 0) + (second.shape[-1] or 0)
        onnx = e.op("Concat", first, second, axis=first.position(-1))
        return [Value(onnx, (*first.shape[:-1], units), first.dtype, first.order)]
    y = e.op("Mul" if mode == "mul" else "Add", first, second)
    return [first.with_onnx(e.op("Mul", y, 0.5) if mode == "ave" else y)]
