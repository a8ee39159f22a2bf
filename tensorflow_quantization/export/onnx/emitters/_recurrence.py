"""Recurrent cells of Keras as ONNX' LSTM, GRU and RNN: weights, gates and activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError, RuntimeLimitError
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.values import Value

_a = keras.activations

#: The activations of ONNX' recurrent operators: name, alpha and beta.
_ACTIVATIONS: dict[Any, tuple[str, float | None, float | None]] = {
    _a.sigmoid: ("Sigmoid", None, None),
    _a.tanh: ("Tanh", None, None),
    _a.relu: ("Relu", None, None),
    _a.hard_sigmoid: ("HardSigmoid", 1 / 6, 0.5),
    _a.softsign: ("Softsign", None, None),
    _a.softplus: ("Softplus", None, None),
    _a.elu: ("Elu", 1.0, None),
    _a.leaky_relu: ("LeakyRelu", 0.2, None),
    _a.linear: ("Affine", 1.0, 0.0),
}

#: The activations with which OpenVINO 2026.4 loads these operators. With others, it raises an error.
_OPENVINO = (_a.sigmoid, _a.tanh, _a.relu)


@dataclass(frozen=True)
class Recurrence:
    """One direction of a recurrent operator.

    Attributes:
        op_type: "LSTM", "GRU" or "RNN".
        units: size of the state.
        states: number of state tensors.
        weight, recurrent: (gates * units, inputs) and (gates * units, units).
        bias: (2 * gates * units,): the bias of the input, then the bias of the recurrent product.
        activations: functions of `keras.activations`, in ONNX' order.
        attributes: other attributes of the operator.
        path: the path of the cell in the layer.
        order: ONNX' order of Keras' gates.
        columns: columns after `weight`, (gates * units, features), for features that the operator adds to its input.
    """

    op_type: str
    units: int
    states: int
    weight: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray | None
    activations: tuple[Any, ...]
    attributes: dict[str, Any]
    path: str
    order: Sequence[int]
    columns: np.ndarray | None = None

    def in_order(self, array: np.ndarray) -> np.ndarray:
        """An array whose last axis is Keras' gates, in the order of ONNX."""
        return _in_order(array, self.order)

    @property
    def gates_saturate(self) -> bool:
        """Whether the gates of a GRU or LSTM are exactly 0 or 1 for large inputs."""
        return self.activations[0] in (_a.sigmoid, _a.hard_sigmoid)

    def joins(self, other: Recurrence) -> bool:
        """Whether one bidirectional operator can compute this direction and `other`."""
        same = (self.op_type, self.units, self.weight.shape, self.attributes)
        return same == (other.op_type, other.units, other.weight.shape, other.attributes)

    @classmethod
    def of(cls, cell: Any, path: str, target: str | None = None) -> Recurrence:
        """The recurrence of a Keras cell.

        Args:
            cell: the cell.
            path: its path in the layer, see `cells_of`.
            target: the runtime of the file; `None` (default) for any runtime.

        Raises:
            NotExpressibleError: ONNX, or the runtime, has no such cell or activation.
        """
        recurrence = cls._of(cell, path)
        others = [function for function in recurrence.activations if function not in _OPENVINO]
        if target == "openvino" and others:
            known = ", ".join(function.__name__ for function in _OPENVINO)
            raise RuntimeLimitError(
                f"has the activation {others[0].__name__!r}; OpenVINO's {recurrence.op_type} has {known}"
            )
        return recurrence

    @classmethod
    def _of(cls, cell: Any, path: str) -> Recurrence:
        kind = type(cell)
        if kind is keras.layers.LSTMCell:
            gates = (cell.recurrent_activation, cell.activation, cell.activation)
            # Keras: input, forget, cell, output. ONNX: input, output, forget, cell.
            return cls._read(cell, path, "LSTM", 2, gates, (0, 3, 1, 2), {})
        if kind is keras.layers.GRUCell:
            return cls._read(
                cell,
                path,
                "GRU",
                1,
                (cell.recurrent_activation, cell.activation),
                (0, 1, 2),
                {"linear_before_reset": int(cell.reset_after)},
            )
        if kind is keras.layers.SimpleRNNCell:
            return cls._read(cell, path, "RNN", 1, (cell.activation,), (0,), {})
        raise NotExpressibleError(
            f"has a cell of class {kind.__name__}; LSTMCell, GRUCell, SimpleRNNCell and stacks of them are exported"
        )

    @classmethod
    def _read(
        cls,
        cell: Any,
        path: str,
        op_type: str,
        states: int,
        activations: tuple,
        order: Sequence[int],
        attributes: dict[str, Any],
    ) -> Recurrence:
        for activation in activations:
            if activation not in _ACTIVATIONS:
                name = getattr(activation, "__name__", type(activation).__name__)
                known = ", ".join(function.__name__ for function in _ACTIVATIONS)
                raise NotExpressibleError(f"has the activation {name!r}; ONNX' {op_type} has {known}")

        bias = None
        if cell.bias is not None:
            bias = _in_order(to_numpy(cell.bias, "float32"), order)
            # A GRU with reset_after has two biases. In other cells, the recurrent product has no bias.
            bias = bias.ravel() if bias.ndim == 2 else np.concatenate([bias, np.zeros_like(bias)])
        weight, recurrent = (_in_order(to_numpy(w, "float32"), order).T for w in (cell.kernel, cell.recurrent_kernel))
        return cls(op_type, cell.units, states, weight, recurrent, bias, activations, attributes, path, order)


def _in_order(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    parts = np.split(array, len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1)


def emit_recurrence(
    e: Emission,
    directions: Sequence[Recurrence],
    x: Value,
    initial: Sequence[Sequence[Value]] | None = None,
    lengths: ir.Value | None = None,
    reverse: bool = False,
    inner: str = "",
) -> tuple[ir.Value, list[ir.Value]]:
    """Append one recurrent operator.

    Args:
        directions: one direction, or a forward and a backward direction.
        x: stored as (time, batch, inputs).
        initial: the initial states of each direction, (batch, units) each; `None` for zeros.
        lengths: the length of each sequence, (batch,), int32; `None` if all sequences have full length.
        reverse: whether a single direction runs backwards.
        inner: name of the operator's weights within the layer.

    Returns:
        All outputs, stored as (time, direction, batch, units), and the last states, (direction, batch, units) each.
        Outputs of a backward direction are in the order of time; outputs after the end of a sequence are zero.
    """
    first = directions[0]
    prefix = f"{e.path}/{inner}" if inner else e.path
    placed = list(zip(directions, ("forward", "backward") if len(directions) > 1 else ("",), strict=True))

    def bias(arrays: Sequence[np.ndarray | None]) -> ir.Value | None:
        if all(a is None for a in arrays):
            return None
        size = 2 * first.recurrent.shape[0]
        return stored("bias", [np.zeros(size, np.float32) if a is None else a for a in arrays])

    def stored(name: str, arrays: Sequence[np.ndarray]) -> ir.Value:
        return e.builder.shared_initializer(f"{prefix}/{name}", np.stack(arrays))

    def weight(name: str, arrays: Sequence[np.ndarray], columns: Sequence[np.ndarray] = ()) -> ir.Value:
        if not e.is_quantized(f"{first.path}.{name}"):
            return stored(
                name, [np.column_stack(both) for both in zip(arrays, columns, strict=True)] if columns else arrays
            )
        each = [_quantized(e, r, name, "/".join(part for part in (inner, place) if part)) for r, place in placed]
        found = each[0] if len(each) == 1 else e.op("Concat", *each, axis=0, name=f"{name}/Concat")
        return e.op("Concat", found, np.stack(columns), axis=2, name=f"{name}/Concat") if columns else found

    columns = [r.columns for r in directions if r.columns is not None]
    states: list[Any] = [None] * first.states
    if initial is not None:
        for i in range(first.states):
            parts = [e.op("Unsqueeze", of_one[i], np.asarray([0], np.int64)) for of_one in initial]
            states[i] = parts[0] if len(parts) == 1 else e.op("Concat", *parts, axis=0)
    functions = [_ACTIVATIONS[f] for r in directions for f in r.activations]
    arguments = [
        x,
        weight("kernel", [r.weight for r in directions], columns),
        weight("recurrent_kernel", [r.recurrent for r in directions]),
        bias([r.bias for r in directions]),
        lengths,
        *states,
    ]
    attributes = {
        "hidden_size": first.units,
        "direction": "bidirectional" if len(directions) == 2 else "reverse" if reverse else "forward",
        "activations": [name for name, _, _ in functions],
        "activation_alpha": [alpha for _, alpha, _ in functions if alpha is not None] or None,
        "activation_beta": [beta for _, _, beta in functions if beta is not None] or None,
        **first.attributes,
    }
    y, *last = e.builder.node(first.op_type, arguments, attributes, f"{prefix}/{first.op_type}", 1 + first.states)
    return y, last


def _quantized(e: Emission, recurrence: Recurrence, name: str, place: str) -> ir.Value:
    """A quantized matrix of one direction, (1, gates * units, inputs)."""
    weight = e.weight(
        f"{recurrence.path}.{name}",
        lambda w: recurrence.in_order(w).T[None],
        axis=1,
        stored_as=f"{place}/{name}" if place else name,
    )
    assert weight is not None
    return weight
