"""Kernels that may round their output to integers without a quantizer, such as average pooling in OpenVINO.

Keras and the runtime compute the same if a quantizer sets these integers, or if input and output stay float.
"""

from __future__ import annotations

from tensorflow_quantization.model.op_traits import origin
from tensorflow_quantization.targets.draft import Draft, read_by
from tensorflow_quantization.targets.reason import Reason, ReasonCode

_ROUNDED = Reason(ReasonCode.WRITTEN_IN_INTEGERS, "quantized because its input is: the kernel rounds the average")
_IN_FLOATS = Reason(ReasonCode.NO_GAIN, "stays in float: no quantizer reads its output")


def place_rounding_kernels(draft: Draft) -> None:
    """Quantize both input and output of each such kernel, or neither.

    An earlier step has placed the quantizers of the readers.
    """
    kernels = [call for call in draft.rounding() if not draft.switched_off(call)]
    for call in reversed(kernels):
        if draft.is_quantized(call.outputs[0]):
            draft.quantize(call.inputs[0], read_by(call))
    for call in kernels:
        if draft.is_quantized(call.outputs[0], for_all=True):
            continue
        if draft.is_quantized(origin(call.inputs[0])):  # another reader needs this quantizer
            draft.quantize(call.outputs[0], _ROUNDED)
        elif call.path not in draft.placements:
            draft.update(call, _IN_FLOATS)
