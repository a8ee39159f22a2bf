"""For OpenVINO: the bias of a quantized convolution as integers, in steps of input scale times weight scale.

Keras has rounded it to these. From integers OpenVINO takes bias and scales of a convolution of integers with a zero
point into the quantizer behind it; a bias of floats it adds by itself, which takes a tenth longer (2026.4).
"""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, bias_in_steps, operand
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import source_of

#: How far a bias may be from a whole number of steps, beside what float32 rounds.
_TOLERANCE = 0.01


def integer_convolution_bias(builder: Builder) -> None:
    for node in list(builder.graph):
        bias = array(operand(node, 2)) if node.op_type == "Conv" else None
        scales = [array(operand(source_of(operand(node, index)), 1)) for index in (0, 1)]
        if bias is None or scales[0] is None or scales[1] is None:
            continue
        scale = np.broadcast_to(scales[0] * scales[1], bias.shape).astype(np.float32)
        steps = bias.astype(np.float64) / scale
        off = np.abs(steps - np.round(steps)) - np.finfo(np.float32).eps * np.abs(steps)
        if np.abs(steps).max(initial=0) < 2**31 - 1 and off.max(initial=0) < _TOLERANCE:
            dequantize = bias_in_steps(builder, node, bias, scale)
            builder.graph.insert_before(node, dequantize)
            node.replace_input_with(2, dequantize.outputs[0])
