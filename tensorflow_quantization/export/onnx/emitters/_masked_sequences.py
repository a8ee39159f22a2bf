"""Masks of sequences for ONNX' recurrent operators, which take the length of each sequence, but no mask.

Keras skips masked steps. So the unmasked steps are moved to the front, the operator runs over their number, and its
outputs are moved back to the unmasked steps. A masked step repeats the output before it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masking import boolean, unsqueeze
from tensorflow_quantization.export.onnx.values import Value

#: Larger than any number of steps. The sum of this number and a step is exact in float32.
_MANY = float(2**22)
_TIME_FIRST = (1, 0, 2)


class MaskedSequences:
    """The mask of a batch of sequences.

    Args:
        e: the emission of the recurrent layer.
        mask: (batch, time), false for steps to skip.

    Attributes:
        mask: the mask as booleans.
        lengths: the number of unmasked steps of each sequence, (batch,), int32.
    """

    def __init__(self, e: Emission, mask: Value):
        self._e = e
        self.mask = mask = boolean(e, mask)
        # (time, batch), like the sequences
        self._mask = e.arrange(mask, (1, 0)).onnx
        numbers = e.op("Cast", self._mask, to=ir.DataType.INT32.value)
        self.lengths = e.op("ReduceSum", numbers, np.asarray([0], np.int64), keepdims=0)
        self._counted = e.op("CumSum", numbers, np.int64(0))
        self._earlier = e.op("Sub", self._counted, numbers)
        self._order = self._sorted_steps(numbers)

    def _sorted_steps(self, numbers: ir.Value) -> ir.Value:
        """The indices of the steps of each sequence: first the unmasked steps, then the masked steps, (time, batch)."""
        e = self._e
        ones = e.op("Cast", e.op("GreaterOrEqual", numbers, np.int32(0)), to=ir.DataType.FLOAT.value)
        step = e.op("CumSum", ones, np.int64(0))
        counts = e.op("Cast", self._mask, to=ir.DataType.FLOAT.value)
        key = e.op("Sub", e.op("Mul", counts, _MANY), step)
        steps = e.op("Slice", e.op("Shape", key), *(np.asarray([i], np.int64) for i in (0, 1)))
        return e.builder.node("TopK", [key, steps], {"axis": 0}, f"{e.path}/TopK", 2)[1]

    def compress(self, x: Value) -> Value:
        """`x`, (batch, time, features), with the unmasked steps of each sequence moved to the front."""
        e = self._e
        x = e.arrange(x, _TIME_FIRST)
        return x.with_onnx(self._gather(x, self._order))

    def spread(self, y: Value, backwards: bool, zero: bool) -> Value:
        """The outputs of a recurrent operator, moved back from the front to the unmasked steps.

        Args:
            y: the outputs of the operator for compressed sequences.
            backwards: whether the operator runs from the last step to the first.
            zero: whether the output of a masked step is zero instead of the output before it.
        """
        e = self._e
        if backwards:
            # The output before a masked step belongs to the next unmasked step; it is zero if there is none.
            index, begun = self._earlier, e.op("Less", self._earlier, self.lengths)
        else:
            index = e.op("Max", e.op("Sub", self._counted, np.int32(1)), np.int32(0))
            begun = e.op("Greater", self._counted, np.int32(0))
        spread = self._gather(y, e.op("Cast", index, to=ir.DataType.INT64.value))
        spread = e.op("Where", unsqueeze(e, begun, [2]), spread, 0.0)
        if zero:
            spread = e.op("Where", unsqueeze(e, self._mask, [2]), spread, 0.0)
        return y.with_onnx(spread)

    def zero_last(self, last: Value, backwards: bool) -> Value:
        """The last output, (batch, units), or zero for sequences whose last step is masked."""
        e = self._e
        at = e.op("Gather", self._mask, np.int64(0 if backwards else -1), axis=0)
        return last.with_onnx(e.op("Where", unsqueeze(e, at, [1]), last, 0.0))

    def _gather(self, x: Value, steps: ir.Value) -> ir.Value:
        e = self._e
        return e.op("GatherElements", x, e.op("Expand", unsqueeze(e, steps, [2]), e.op("Shape", x)), axis=0)
