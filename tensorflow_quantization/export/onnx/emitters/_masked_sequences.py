"""Masks of sequences for ONNX' recurrent operators, which take the length of each sequence, but no mask.

Keras skips masked steps. So the unmasked steps are moved to the front, in the order in which the layer runs over them,
and the operator runs forwards. Its outputs are moved back to the unmasked steps; a masked step repeats the output
before it. The last output and states belong to the last unmasked step.

    steps    a - b c -      forwards    a b c - - -      backwards    c b a - - -

OpenVINO 2026.4 ignores `sequence_lens` if an axis of the sequences, such as the batch axis, has an unknown size: it
runs over all steps. So nothing is read from the operator that depends on the lengths: the last output is taken from all
outputs. The lengths only spare other runtimes the masked steps.

The outputs of an LSTM do not have its second state. So if this state is read, the operator keeps it unchanged at masked
steps: an additional feature, 1 at masked steps, closes the input gate and opens the forget gate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import RuntimeLimitError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masking import boolean, unsqueeze
from tensorflow_quantization.export.onnx.emitters._recurrence import Recurrence
from tensorflow_quantization.export.onnx.values import Value

#: Larger than any number of steps.
_MANY = np.int32(2**22)
_TIME_FIRST = (1, 0, 2)
#: The runtimes that stop at the end of a sequence whatever is known about its shape.
_STOPPING = ("onnxruntime", "tensorrt")
#: Weight of the feature that marks masked steps: sigmoid(±1e4) is 0 or 1, whatever is added. It fits into float16.
_SATURATING = 1e4


class MaskedSequences:
    """The mask of a batch of sequences.

    Args:
        e: the emission of the recurrent layer.
        mask: (batch, time), false for steps to skip.

    Attributes:
        mask: the mask as booleans.
    """

    def __init__(self, e: Emission, mask: Value):
        self._e = e
        self.mask = mask = boolean(e, mask)
        # (time, batch), like the sequences
        self._mask = e.arrange(mask, (1, 0)).onnx
        self._numbers = e.op("Cast", self._mask, to=ir.DataType.INT32.value)
        self._lengths = e.op("ReduceSum", self._numbers, np.asarray([0], np.int64), keepdims=0)
        self._counted = e.op("CumSum", self._numbers, np.int64(0))
        ones = e.op("Cast", e.op("GreaterOrEqual", self._numbers, np.int32(0)), to=ir.DataType.INT32.value)
        self._steps = e.op("CumSum", ones, np.int64(0))

    def check(self, recurrences: Iterable[Recurrence], with_states: bool) -> None:
        """Raises: RuntimeLimitError: the runtime of the file cannot compute the second state of an operator."""
        for recurrence in recurrences:
            beyond = with_states and recurrence.states > 1
            if beyond and self._e.builder.target == "openvino" and not recurrence.gates_saturate:
                name = recurrence.activations[0].__name__
                raise RuntimeLimitError(
                    f"skips masked steps and returns its state, which OpenVINO cannot compute with the "
                    f"recurrent_activation {name!r}, only with 'sigmoid'"
                )

    def lengths(self, recurrence: Recurrence, with_states: bool) -> ir.Value | None:
        """`sequence_lens` of an operator, (batch,), int32; `None` to run over all steps.

        Args:
            recurrence: the operator.
            with_states: whether the layer returns its states.
        """
        runs_on = self._e.builder.target == "openvino" or self._holds(recurrence, with_states)
        return None if runs_on else self._lengths

    def _holds(self, recurrence: Recurrence, with_states: bool) -> bool:
        """Whether the operator has to hold its second state at masked steps."""
        stops = self._e.builder.target in _STOPPING
        return with_states and recurrence.states > 1 and recurrence.gates_saturate and not stops

    def compress(self, x: Value, backwards: bool) -> Value:
        """`x`, (batch, time, features), with the unmasked steps at the front, the last one first if `backwards`."""
        x = self._e.arrange(x, _TIME_FIRST)
        return x.with_onnx(self._gather(x, self._sorted_steps(backwards)))

    def _sorted_steps(self, backwards: bool) -> ir.Value:
        """The indices of the steps of each sequence: first the unmasked steps, then the masked steps, (time, batch)."""
        e = self._e
        # In integers: a runtime that computes floats with 16 bits would round the steps away.
        key = e.op("Add" if backwards else "Sub", e.op("Mul", self._numbers, _MANY), self._steps)
        steps = e.op("Slice", e.op("Shape", key), *(np.asarray([i], np.int64) for i in (0, 1)))
        return e.builder.node("TopK", [key, steps], {"axis": 0}, f"{e.path}/TopK", 2)[1]

    def holding(self, recurrence: Recurrence, x: Value, with_states: bool) -> tuple[Recurrence, Value]:
        """The operator and its compressed sequences, with the additional feature if it has to hold its second state."""
        if not self._holds(recurrence, with_states):
            return recurrence, x
        e = self._e
        x = e.arrange(x, _TIME_FIRST)
        masked = e.op("Cast", e.op("Greater", self._steps, self._lengths), to=ir.DataType.FLOAT.value)
        shape = (*x.shape[:2], None if x.shape[2] is None else x.shape[2] + 1)
        wider = Value(e.op("Concat", x, unsqueeze(e, masked, [2]), axis=2), shape, x.dtype, x.order)
        # ONNX: input, output, forget and cell gate.
        column = np.repeat(np.asarray([-_SATURATING, 0, _SATURATING, 0], np.float32), recurrence.units)
        return replace(recurrence, columns=column[:, None]), wider

    def spread(self, y: Value, backwards: bool, zero: bool) -> Value:
        """The outputs of an operator for compressed sequences, moved back to the unmasked steps.

        Args:
            y: the outputs.
            backwards: whether the layer runs from the last step to the first.
            zero: whether the output of a masked step is zero instead of the output before it.
        """
        e = self._e
        if backwards:
            # The output before a masked step belongs to the next unmasked step; it is zero if there is none.
            earlier = e.op("Sub", self._counted, self._numbers)
            count = e.op("Sub", self._lengths, earlier)
        else:
            count = self._counted
        begun = e.op("Greater", count, np.int32(0))
        spread = e.op("Where", unsqueeze(e, begun, [2]), self._output_after(y, count), 0.0)
        if zero:
            spread = e.op("Where", unsqueeze(e, self._mask, [2]), spread, 0.0)
        return y.with_onnx(spread)

    def last(self, y: Value) -> ir.Value:
        """The output of the last unmasked step, (batch, units), of the outputs for compressed sequences.

        It is arbitrary for sequences without an unmasked step, see `begun`.
        """
        e = self._e
        return e.op("Squeeze", self._output_after(y, unsqueeze(e, self._lengths, [0])), np.asarray([0], np.int64))

    def begun(self, state: ir.Value, initial: Value | None) -> ir.Value:
        """`state`, or the initial state, zero by default, for sequences without an unmasked step."""
        e = self._e
        begun = unsqueeze(e, e.op("Greater", self._lengths, np.int32(0)), [1])
        return e.op("Where", begun, state, 0.0 if initial is None else initial)

    def zero_last(self, last: Value, backwards: bool) -> Value:
        """The last output, (batch, units), or zero for sequences whose last step is masked."""
        e = self._e
        at = e.op("Gather", self._mask, np.int64(0 if backwards else -1), axis=0)
        return last.with_onnx(e.op("Where", unsqueeze(e, at, [1]), last, 0.0))

    def _output_after(self, y: Value, count: ir.Value) -> ir.Value:
        """The outputs after `count` steps of each sequence; arbitrary for a count of 0."""
        e = self._e
        index = e.op("Max", e.op("Sub", count, np.int32(1)), np.int32(0))
        return self._gather(y, e.op("Cast", index, to=ir.DataType.INT64.value))

    def _gather(self, x: Value, steps: ir.Value) -> ir.Value:
        e = self._e
        shape = np.asarray([1, 1, x.shape[-1]], np.int64)
        return e.op("GatherElements", x, e.op("Expand", unsqueeze(e, steps, [2]), shape), axis=0)
