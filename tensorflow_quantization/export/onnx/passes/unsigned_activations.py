"""Writes int8 activations with zero point 0 as uint8, the same values: what ONNX Runtime fuses.

Where nothing is negative, zero point 0 stays, and a Clip of the integers at 127 keeps the upper limit; elsewhere the
zero point becomes 128.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, operand, producer
from tensorflow_quantization.export.onnx.passes.nonnegative import find_nonnegative
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import MOVING

#: Of the meta data of integers: what was added to them.
OFFSET = "offset"


def unsigned_activations(builder: Builder) -> None:
    nonnegative = find_nonnegative(builder.graph)
    for quantize in list(builder.graph):
        zero_point = array(operand(quantize, 2)) if quantize.op_type == "QuantizeLinear" else None
        if zero_point is None or zero_point.dtype != np.int8 or zero_point.ndim or zero_point != 0:
            continue
        integers = quantize.outputs[0]
        readers = [use.node for use in integers.uses()]
        if integers.is_graph_output() or any(r.op_type != "DequantizeLinear" for r in readers):
            continue
        positive = operand(quantize, 0) in nonnegative
        new = builder.constant(np.uint8(0 if positive else 128))
        clips = positive and not _repeats(quantize)
        quantize.replace_input_with(2, new)
        integers.type = None
        integers.meta[OFFSET] = 0 if positive else 128
        if clips:
            integers = _clip(builder, quantize)
        for reader in readers:
            reader.replace_input_with(0, integers)
            reader.replace_input_with(2, new)


def _repeats(quantize: ir.Node) -> bool:
    """Whether what is quantized are values of the same integers already."""
    value = operand(quantize, 0)
    while (moving := producer(value, *MOVING)) is not None:
        value = operand(moving, 0)
    dequantize = producer(value, "DequantizeLinear")
    return dequantize is not None and array(operand(dequantize, 1)) == array(operand(quantize, 1))


def _clip(builder: Builder, quantize: ir.Node) -> ir.Value:
    name = builder.unique(f"{quantize.name}/Clip")
    limits = [builder.constant(np.uint8(0)), builder.constant(np.uint8(127))]
    clip = ir.node("Clip", [quantize.outputs[0], *limits], outputs=[ir.Value(name=name)], name=name)
    builder.graph.insert_after(quantize, clip)
    return clip.outputs[0]
