"""What the entries of a spec change about quantizers that stand where a tensor is computed, for all its readers.

An entry speaks of what its layer reads. If the target places the quantizer at the layer or model input that computes
the tensor, the entries of the readers still decide:

- A layer with `quantize_input=False` reads floats: the shared quantizer goes, and each other reader that computes in
  integers gets a quantizer of its own.
- Otherwise the largest number of bits that a reader needs counts.
- The entry of the layer that computes the tensor counts if it has `quantize_output=True` or is of a model input, if no
  layer reads the tensor in integers, or if it concatenates: the quantizer of its output is then also the quantizer of
  its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, moves_data, origin, traits
from tensorflow_quantization.quantize.spec import LayerConfig
from tensorflow_quantization.targets import Placement, Target
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.text.warn import warn_user

#: Returns the entry that decides on a call or on a model input, and the source of the entry as text.
Find = Callable[[Call | Tensor], tuple[LayerConfig | None, str]]


#: The codes of a placement that leaves a call in float which the target has an integer kernel for.
_STAYS_FLOAT = (ReasonCode.HUGE_MASK, ReasonCode.NO_GAIN)


@dataclass
class SharedTensors:
    """The placements after the entries of readers counted.

    Attributes:
        placements: by path of a call or name of a model input.
        bits: of the quantizer on the output, by path of a call or name of a model input.
        notes: what to add to the reason of a layer, by path.
        floats: the ids of model inputs that stay float for all readers.
    """

    placements: dict[str, Placement]
    bits: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    floats: set[int] = field(default_factory=set)

    def is_quantized(self, tensor: Tensor) -> bool:
        """Whether a tensor is quantized where it is computed."""
        return self.placements.get(_path(origin(tensor)), Placement()).output

    def needs_quantizer(self, tensor: Tensor) -> bool:
        """Whether a layer that shall read integers needs a quantizer of its own for `tensor`."""
        return not self.is_quantized(tensor) and id(origin(tensor)) not in self.floats


def settle(
    graph: LayerGraph, target: Target, placed: dict[str, Placement], find: Find, bits: int, only_named: bool
) -> SharedTensors:
    """Apply the entries of readers to the placements of a target.

    Args:
        graph: a flat graph.
        target: the target.
        placed: its placements.
        find: returns the entry for a call or a model input.
        bits: of activations where no entry sets them.
        only_named: layers without an entry stay float (partial mode).
    """
    shared = SharedTensors(dict(placed))
    readers = _Readers(graph, target, placed, find, bits, only_named)
    for tensor in graph.inputs:
        _settle_model_input(shared, readers, tensor)
    for tensor in [*graph.inputs, *(call.outputs[0] for call in graph.calls)]:
        if shared.placements.get(_path(tensor), Placement()).output:
            _settle_tensor(shared, readers, tensor)
    return shared


def is_off(entry: LayerConfig, index: int) -> bool:
    """Whether an entry leaves the input with this index float."""
    if entry.quantization_index is not None:
        return index not in entry.quantization_index
    return not entry.quantize_input


@dataclass(frozen=True)
class _Reader:
    """A call that reads a tensor as its operand `index`.

    Attributes:
        bits: how many it needs; `None`: it computes in float.
        entry, source: its entry, and the source of the entry.
    """

    call: Call
    index: int
    bits: int | None
    entry: LayerConfig | None
    source: str

    @property
    def is_off(self) -> bool:
        return self.entry is not None and is_off(self.entry, self.index)

    @property
    def asks_for_bits(self) -> bool:
        return self.entry is not None and self.entry.activation_bits is not None

    def __str__(self) -> str:
        return f"{self.call.path} ({self.source})" if self.source else self.call.path


class _Readers:
    """Finds the readers of a tensor, with what each of them needs."""

    def __init__(
        self, graph: LayerGraph, target: Target, placed: dict[str, Placement], find: Find, bits: int, only_named: bool
    ):
        self.graph = graph
        self.target = target
        self.placed = placed
        self.find = find
        self.bits = bits
        self.only_named = only_named

    def of(self, tensor: Tensor) -> Iterator[_Reader]:
        """The readers of `tensor`, also after calls that only move it."""
        for call in self.graph.consumers(tensor):
            entry, source = self.find(call)
            for index in (i for i, operand in enumerate(call.operands) if operand is tensor):
                yield _Reader(call, index, self._bits(call, entry), entry, source)
            if moves_data(call):
                for output in call.outputs:
                    yield from self.of(output)

    def _bits(self, call: Call, entry: LayerConfig | None) -> int | None:
        if entry is not None and entry.activation_bits is not None:
            return entry.activation_bits
        named = entry is not None and Trait.MOVES_DATA not in traits(call)
        return self.bits if named or self._is_kernel(call) else None

    def _is_kernel(self, call: Call) -> bool:
        if self.only_named:
            return False
        placement = self.placed.get(call.path)
        if placement is not None and placement.reason is not None and placement.reason.code in _STAYS_FLOAT:
            return False
        if self.target.why_not is None:
            return placement is not None
        return self.target.why_not(self.graph, call).code is ReasonCode.SHARES_QUANTIZER


def _settle_model_input(shared: SharedTensors, readers: _Readers, tensor: Tensor) -> None:
    """Apply the entry for a model input: one quantizer for all its readers, or none."""
    entry, source = readers.find(tensor)
    if entry is None:
        return
    if not keras.backend.is_float_dtype(tensor.dtype):
        warn_user(f"Input {tensor.name!r} has dtype {tensor.dtype}, so its entry in the QuantizationSpec does nothing.")
        return
    for reader in readers.of(tensor):
        _take_own_quantizer(shared, reader)
    if is_off(entry, 0):
        shared.placements.pop(tensor.name, None)
        shared.floats.add(id(tensor))
    else:
        shared.placements[tensor.name] = Placement(output=True, reason=Reason(ReasonCode.NAMED, source))


def _settle_tensor(shared: SharedTensors, readers: _Readers, tensor: Tensor) -> None:
    """Decide on the quantizer that stands where `tensor` is computed."""
    path, found = _path(tensor), list(readers.of(tensor))
    own, source = readers.find(tensor.producer if tensor.producer is not None else tensor)
    asked = own is not None and (own.quantize_output or tensor.producer is None)  # a quantizer of the user's
    off = next((reader for reader in found if reader.is_off), None)
    integer = [reader for reader in found if reader.bits is not None and not reader.is_off]
    if off is not None:
        fixed = integer and shared.placements[path].matmul_operand is not None  # its integers are of no other quantizer
        if not (asked or fixed):
            _split(shared, tensor, off, integer)
            return
        other = f"its entry ({source})" if asked else integer[0].call.path
        warn_user(
            f"Layer {off.call.path!r} reads integers in spite of its entry ({off.source}): the output of {path!r} is "
            f"quantized for {other}."
        )
    joins = tensor.producer is not None and Trait.JOINS in traits(tensor.producer)
    wishes = [(reader.bits or 0, str(reader)) for reader in integer]
    if own is not None and own.activation_bits is not None:
        if asked:  # then only other entries count
            wishes = [(reader.bits or 0, str(reader)) for reader in integer if reader.asks_for_bits]
        wishes += [(own.activation_bits, source)] * (asked or joins or not wishes)
    elif not any(reader.asks_for_bits for reader in integer):
        return
    bits, winner = max(wishes, key=lambda wish: wish[0])
    shared.bits[path] = bits
    if bits != readers.bits and winner != source:
        shared.notes[path] = f"{bits} bits for {winner}"
    if asked and own is not None and own.activation_bits not in (None, bits):
        warn_user(
            f"The quantizer on the output of {path!r} ({source}) has {bits} bits, not {own.activation_bits}: it is "
            f"shared with {winner}. The largest number of bits counts."
        )
    for reader in integer:
        if reader.asks_for_bits and reader.bits != bits:
            warn_user(
                f"Layer {reader.call.path!r} ({reader.source}) reads {bits} bits, not {reader.bits}: it shares the "
                f"quantizer on {path!r} with {winner}. The largest number of bits counts."
            )


#: A gate is quantized only together with the output of its activation.
_NO_OUTPUT: dict[str, Any] = {
    **dict.fromkeys(("output", "same_scale", "gate"), False),
    **dict.fromkeys(("fixed_output", "fixed_gate", "matmul_operand"), None),
}


def _split(shared: SharedTensors, tensor: Tensor, off: _Reader, integer: list[_Reader]) -> None:
    """Leave `tensor` float for the reader `off`; the other readers get a quantizer each."""
    path = _path(tensor)
    changed = replace(shared.placements[path], **_NO_OUTPUT)
    note = f"its output stays float for {off}"
    if tensor.producer is None or not changed:
        shared.placements.pop(path)
    else:
        shared.placements[path] = changed
    shared.notes[path] = note
    for reader in integer:
        before = shared.placements.get(reader.call.path, Placement(reason=Reason(ReasonCode.DEFAULT, note)))
        if reader.index not in before.inputs:
            inputs = tuple(sorted({*before.inputs, reader.index}))
            shared.placements[reader.call.path] = replace(before, inputs=inputs)


def _take_own_quantizer(shared: SharedTensors, reader: _Reader) -> None:
    before = shared.placements.get(reader.call.path)
    if before is not None and reader.index in before.inputs and not before.same_scale:
        inputs = tuple(i for i in before.inputs if i != reader.index)
        shared.placements[reader.call.path] = replace(before, inputs=inputs)


def _path(tensor: Tensor) -> str:
    return tensor.producer.path if tensor.producer is not None else tensor.name
