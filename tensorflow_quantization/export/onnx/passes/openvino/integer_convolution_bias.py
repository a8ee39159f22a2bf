"""For OpenVINO: store the bias of a quantized convolution as int32, in steps of input scale times weight scale.

    DQ ── Conv(DQ, bias)    →    DQ ── Conv(DQ, DQ(bias in steps))

The quantized Keras layer has rounded the bias to these steps. For an input with a zero point, OpenVINO 2026.4 fuses the
scales and an integer bias into the quantizer after the convolution. It adds a float bias separately, which takes a
tenth longer.
"""

from __future__ import annotations

import logging

import numpy as np

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_integer_bias
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import constant, name_of, operand

logger = logging.getLogger(__name__)

#: How far a bias may be from a whole number of steps, besides the rounding error of float32.
_TOLERANCE = 0.01


def integer_convolution_bias(builder: Builder) -> int:
    """Convert biases to integers, and return their number."""
    changed = 0
    for node in [node for node in builder.graph if node.op_type == "Conv"]:
        bias = constant(operand(node, 2))
        scales = [constant(operand(source_of(operand(node, index)), 1)) for index in (0, 1)]
        if bias is None or scales[0] is None or scales[1] is None:
            continue
        scale = np.broadcast_to(scales[0] * scales[1], bias.shape).astype(np.float32)
        steps = bias.astype(np.float64) / scale
        off = np.abs(steps - np.round(steps)) - np.finfo(np.float32).eps * np.abs(steps)
        if np.abs(steps).max(initial=0) >= 2**31 - 1 or off.max(initial=0) >= _TOLERANCE:
            logger.debug("%s keeps a float bias: it is not in whole steps that fit int32", name_of(node))
            continue
        node.replace_input_with(2, insert_integer_bias(builder, node, bias, scale))
        changed += 1
    return changed
