"""`Draft`: the placements of one graph, to which the steps of `at_tensors` add."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Any

import keras

from tensorflow_quantization.model.activations import Activation, activation_of, last_activation
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.mask_numbers import mask_numbers, masks
from tensorflow_quantization.model.op_traits import Trait, attends, is_one_of, origin, traits
from tensorflow_quantization.targets.float_sums import find_float_sums
from tensorflow_quantization.targets.kernel_rules import KernelRules
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.target import MatmulOperand, Placement, SwitchedOff

COMPUTED_IN_INTEGERS = Reason(ReasonCode.DEFAULT, "computed in integers")
MASKED = Reason(ReasonCode.HUGE_MASK, "stays in float: integers cannot hold a mask of huge numbers beside other values")


class Side(Enum):
    """The operand of a matrix product of two activations."""

    LEFT = "left"
    RIGHT = "right"


class Draft:
    """The placements so far.

    Attributes:
        graph: the flat graph of the model.
        rules: what the runtime computes in integers.
        switched_off: whether the spec or a case turns the quantization of a call's inputs off.
        float_sums: the ids of calls that are sums which stay in float.
        masked: the ids of tensors that hold the huge numbers of a mask, which integers cannot hold.
        placements: the placements by path of a call or name of a model input.
    """

    def __init__(self, graph: LayerGraph, rules: KernelRules, switched_off: SwitchedOff):
        self.graph = graph
        self.rules = rules
        self.switched_off = switched_off
        self.float_sums = find_float_sums(graph, rules.is_integer) if rules.float_residuals else set()
        self.masked = mask_numbers(graph)
        self.placements: dict[str, Placement] = {}

    def is_integer(self, call: Call) -> bool:
        """Whether a call is computed in integers if its tensors are quantized, and nothing keeps it in float."""
        return self.rules.is_integer(call) and id(call) not in self.float_sums and not self.is_masked(call)

    def is_masked(self, call: Call) -> bool:
        """Whether a call reads or computes a tensor that holds the huge numbers of a mask."""
        tensors = (*call.inputs, *call.outputs)
        return masks(call, self.masked) or any(id(tensor) in self.masked for tensor in tensors)

    def rounding(self) -> list[Call]:
        """The integer kernels that may round their output without a quantizer on it."""
        return [call for call in self.graph.calls if is_one_of(call, self.rules.rounding) and self.is_integer(call)]

    def update(self, call: Call, reason: Reason, **changes: Any) -> None:
        """Change the placement of a call; the reason of an earlier change stays."""
        self._update(call.path, reason, changes)

    def quantize(self, tensor: Tensor, reason: Reason, side: Side | None = None) -> None:
        """Place a quantizer where `tensor` is computed, unless its only reader has a quantizer for its own output.

        The exception holds for readers whose input and output share a scale, such as a concatenation.

        Args:
            tensor: the tensor to quantize. A tensor that only moves data is quantized at the origin of the data.
            reason: why, if the tensor has no quantizer yet.
            side: the operand that `tensor` is, if a matrix product of two activations reads it.
        """
        tensor = origin(tensor)
        if not keras.backend.is_float_dtype(tensor.dtype) or not _can_be_quantized(tensor):
            return
        if id(tensor) in self.masked:
            return
        activation = last_activation(tensor)
        fixed = self.rules.fixed_ranges.get(activation)
        reader = self.graph.only_reader(tensor)
        if fixed is None and reader is not None and self._hands_scale_back(reader) and not self.switched_off(reader):
            return
        path = tensor.producer.path if tensor.producer else tensor.name
        if tensor.producer and (floats := self._why_float(tensor.producer)):
            reason = Reason(ReasonCode.FLOAT_READ_IN_INTEGERS, f"{reason}; the layer itself is {floats}")
        changes: dict[str, Any] = {"output": True, "fixed_output": fixed}
        if side is not None:
            before = self.placements.get(path, Placement()).matmul_operand
            non_negative = side is Side.LEFT and activation.is_never_negative and before is not MatmulOperand.SIGNED
            changes["matmul_operand"] = MatmulOperand.NON_NEGATIVE if non_negative else MatmulOperand.SIGNED
        self._update(path, reason, changes)

    def quantize_operand(self, call: Call, index: int) -> bool:
        """Place a quantizer of its own before an operand of a call, if none can stand where it is computed.

        That is so behind a call with several outputs. The inputs of a concatenation and the scores of attention get
        none.

        Returns:
            Whether the operand gets a quantizer of its own.
        """
        tensor, source = call.operands[index], origin(call.operands[index])
        if _can_be_quantized(source) or not keras.backend.is_float_dtype(tensor.dtype):
            return False
        if self._hands_scale_back(call) or (source.producer is not None and attends(source.producer)):
            return False
        inputs = {*self.placements.get(call.path, Placement()).inputs, index}
        self.update(call, COMPUTED_IN_INTEGERS, inputs=tuple(sorted(inputs)))
        return True

    def place_gate(self, call: Call) -> None:
        """Quantize the output of a gated activation, and its gate, a sigmoid."""
        fixed = self.rules.fixed_ranges.get(Activation.SIGMOID)
        self.update(call, COMPUTED_IN_INTEGERS, gate=True, output=True, fixed_gate=fixed)

    def is_quantized(self, tensor: Tensor, for_all: bool = False) -> bool:
        """Whether `tensor` has a quantizer, or a concatenation that reads it has one.

        Args:
            tensor: a tensor.
            for_all: whether the quantizers of concatenations count only if each reader is one of them.
        """
        if tensor.producer is not None and self._has_output(tensor.producer):
            return True
        readers = self.graph.consumers(tensor)
        joined = [Trait.JOINS in traits(reader) and self._has_output(reader) for reader in readers]
        return bool(joined) and (all if for_all else any)(joined)

    def _has_output(self, call: Call) -> bool:
        return self.placements.get(call.path, Placement()).output

    def _why_float(self, call: Call) -> str | None:
        """Why a call is computed in float, a clause; `None` if it may be computed in integers."""
        if (why := self.rules.why_float(call)) is not None:
            return why
        if self.is_masked(call):
            return "computed in float: it reads a mask of huge numbers"
        # A runtime may fuse an activation, or compute other simple operations in integers where no rule is about them.
        known = traits(call) & ~Trait.KEEPS_CHANNEL_FACTORS or activation_of(call.operation) is not None
        unknown = not known and not self.rules.is_integer(call)
        return "not known to run in integers" if unknown else None

    def _update(self, path: str, reason: Reason, changes: dict[str, Any]) -> None:
        self.placements[path] = replace(self.placements.get(path, Placement(reason=reason)), **changes)

    def _hands_scale_back(self, reader: Call) -> bool:
        """Whether the output quantizer of `reader` also sets the scale of its input."""
        if self.is_masked(reader):
            return False
        if Trait.SELECTS in traits(reader):
            return self.is_integer(reader)
        return Trait.JOINS in traits(reader) or is_one_of(reader, self.rules.same_scale)


def read_by(call: Call) -> Reason:
    """The reason for a tensor that an integer kernel reads."""
    return Reason(ReasonCode.READ_IN_INTEGERS, f"read by {call.path}")


def written_by(kernel: str) -> Reason:
    """The reason for a tensor that an integer kernel writes."""
    return Reason(ReasonCode.WRITTEN_IN_INTEGERS, f"written by the kernel of {kernel}")


def _can_be_quantized(tensor: Tensor) -> bool:
    """Whether `tensor` is a model input, the only output of a call, or the first output of attention.

    Attention may return its scores as a second output.
    """
    if tensor.producer is None or len(tensor.producer.outputs) == 1:
        return True
    return tensor.index == 0 and attends(tensor.producer)
