"""Kernels that may round their output to integers unasked, as an average in OpenVINO.

Keras and the runtime agree if a quantizer says to which integers, or if nothing around them is in integers.
"""

from __future__ import annotations

from tensorflow_quantization.model.op_traits import origin
from tensorflow_quantization.targets.draft import Draft, read_by
from tensorflow_quantization.targets.reason import Reason, ReasonCode

_ROUNDED = Reason(ReasonCode.WRITTEN_IN_INTEGERS, "rounded: what is averaged are integers")
_IN_FLOATS = Reason(ReasonCode.NO_GAIN, "stays in floats: no quantizer reads what it gives")


def place_rounding_kernels(draft: Draft) -> None:
    """Quantize input and output of each such kernel together, or neither.

    The kernels' readers are decided on before.
    """
    kernels = [call for call in draft.rounding() if not draft.switched_off(call)]
    for call in reversed(kernels):
        if draft.is_quantized(call.outputs[0]):
            draft.quantize(call.inputs[0], read_by(call))
    for call in kernels:
        if draft.is_quantized(call.outputs[0]):
            continue
        if draft.is_quantized(origin(call.inputs[0])):  # for others that read it
            draft.quantize(call.outputs[0], _ROUNDED)
        elif call.path not in draft.placements:
            draft.update(call, _IN_FLOATS)
