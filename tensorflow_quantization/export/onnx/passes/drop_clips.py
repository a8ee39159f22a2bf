"""Removes the Clip before a QuantizeLinear where its input never goes below what it allows.

Narrow integers, -127 to 127, need one, because QuantizeLinear saturates at -128; but not after a ReLU.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, operand, producer, replace
from tensorflow_quantization.export.onnx.passes.nonnegative import find_nonnegative


def drop_clips(builder: Builder) -> None:
    nonnegative = find_nonnegative(builder.graph)
    for node in list(builder.graph):
        clip = producer(operand(node, 0), "Clip") if node.op_type == "QuantizeLinear" else None
        if clip is None:
            continue
        source, low, high = operand(clip, 0), array(operand(clip, 1)), operand(clip, 2)
        if source in nonnegative and low is not None and low <= 0 and high is None:
            replace(clip.outputs[0], source)
