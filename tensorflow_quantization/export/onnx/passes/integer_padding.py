"""For ONNX Runtime and OpenVINO: integers are padded with their zero point, where else floats would be with zero.

Neither takes a Pad between DequantizeLinear and QuantizeLinear into integers, unless their zero point is 0; one of
integers they just run.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import is_private, operand, producer, replace
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import moves_only, same_parameters


def integer_padding(builder: Builder) -> None:
    for quantize in list(builder.graph):
        pad = producer(operand(quantize, 0), "Pad") if quantize.op_type == "QuantizeLinear" else None
        dequantize = producer(operand(pad, 0), "DequantizeLinear") if pad is not None else None
        if pad is None or dequantize is None or not moves_only(pad) or not is_private(pad.outputs[0]):
            continue
        zero_point = operand(quantize, 2)
        if zero_point is None or not same_parameters(dequantize, quantize):
            continue
        pad.resize_inputs(max(3, len(pad.inputs)))
        pad.replace_input_with(0, operand(dequantize, 0))
        pad.replace_input_with(2, zero_point)
        pad.outputs[0].type = zero_point.type
        replace(quantize.outputs[0], pad.outputs[0])
        builder.graph.remove(quantize, safe=True)
