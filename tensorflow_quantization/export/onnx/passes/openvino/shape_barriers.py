"""For OpenVINO: read the shape of what a quantized convolution computes after a MaxPool of 1x1.

    DQ ── Conv ── Relu ── Shape    →    DQ ── Conv ── Relu ── MaxPool 1x1 ── Shape

OpenVINO 2026.4 reads a size where it first appears: at the convolution, before its bias. The convolution has two
readers then, and OpenVINO loses the bias. It does not look for the size before a pooling.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.operators import CHANNELWISE, POINTWISE
from tensorflow_quantization.onnx_graph.queries import attribute, is_dequantize, producer

_SAME_SHAPE = POINTWISE | CHANNELWISE


def shape_barriers(builder: Builder) -> int:
    """Insert a MaxPool before such Shapes, and return the number of Shapes."""
    pooled: dict[ir.Value, ir.Value] = {}
    changed = 0
    for node in [node for node in builder.graph if node.op_type == "Shape"]:
        value = node.inputs[0]
        convolution = _quantized_convolution(value)
        if value is None or convolution is None:
            continue
        if value not in pooled:
            kernel = [1] * len(attribute(convolution, "kernel_shape"))
            source = producer(value)
            assert source is not None
            pooled[value] = builder.insert("MaxPool", [value], {"kernel_shape": kernel}, after=source, like=value)
        node.replace_input_with(0, pooled[value])
        changed += 1
    return changed


def _quantized_convolution(value: ir.Value | None) -> ir.Node | None:
    """A convolution of integers that computes a tensor of the shape of `value`, from which `value` is computed."""
    seen: set[ir.Node] = set()
    left = [producer(value)]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.op_type == "Conv" and is_dequantize(producer(node.inputs[0])):
            return node
        if node.op_type in _SAME_SHAPE:
            left += [producer(operand) for operand in node.inputs]
    return None
