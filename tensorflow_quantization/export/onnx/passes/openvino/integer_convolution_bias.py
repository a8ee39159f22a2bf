"""For OpenVINO: the bias of a quantized convolution as integers, in steps of input scale times weight scale.

    DQ ── Conv(DQ, bias)    →    DQ ── Conv(DQ, DQ(bias in steps))

Keras has rounded it to these steps. From integers OpenVINO takes bias and scales of a convolution of integers with a
zero point into the quantizer after it; a bias of floats it adds by itself, which takes a tenth longer (2026.4).
"""

from __future__ import annotations

import logging

import numpy as np

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_integer_bias
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import constant, name_of, operand

logger = logging.getLogger(__name__)

#: How far a bias may be from a whole number of steps, beside what float32 rounds.
_TOLERANCE = 0.01


def integer_convolution_bias(builder: Builder) -> int:
    """Returns how many biases are integers now."""
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
            logger.debug("%s keeps a bias of floats: it is not in whole steps of 32 bits", name_of(node))
            continue
        node.replace_input_with(2, insert_integer_bias(builder, node, bias, scale))
        changed += 1
    return changed
