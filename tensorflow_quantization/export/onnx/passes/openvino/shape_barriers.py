"""For OpenVINO: read sizes of what a quantized convolution computes after a MaxPool of 1x1.

    DQ ── Conv ── Relu ── Shape    →    DQ ── Conv ── Relu ── MaxPool 1x1 ── Shape

OpenVINO 2026.4 reads a size where it first appears: at the convolution, before its bias. The convolution has two
readers then, and OpenVINO loses the bias. It does not look for the size before a pooling, except for the size of the
batch: that first appears at the first convolution with a bias, wherever the file reads it. So a MaxPool keeps this
convolution apart from the quantizer after it.

    DQ ── Conv ── Relu ── Q …  Shape    →    DQ ── Conv ── Relu ── MaxPool 1x1 ── Q …  Shape
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_barrier
from tensorflow_quantization.onnx_graph.operators import CHANNELWISE, LIMITING, POINTWISE
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_dequantize,
    only_reader,
    operand,
    producer,
    readers,
)

_SAME_SHAPE = POINTWISE | CHANNELWISE


def shape_barriers(builder: Builder) -> int:
    """Insert the MaxPools; return the number of Shapes and of first convolutions that got one."""
    pooled: dict[ir.Value, ir.Value] = {}
    shapes = [node for node in builder.graph if node.op_type == "Shape"]
    changed = 0
    for node in shapes:
        value = node.inputs[0]
        convolution = _quantized_convolution(value)
        if value is None or convolution is None:
            continue
        if value not in pooled:
            pooled[value] = insert_barrier(
                builder, value, len(attribute(convolution, "kernel_shape")), for_readers=False
            )
        node.replace_input_with(0, pooled[value])
        changed += 1
    if any(map(_reads_batch, shapes)):
        changed += _keep_first_convolutions_apart(builder)
    return changed


def _reads_batch(shape: ir.Node) -> bool:
    """Whether more than sizes of other axes than the first are read from a Shape."""

    def other_axes(reader: ir.Node) -> bool:
        first = constant(operand(reader, 1))  # the index of a Gather, the start of a Slice
        return reader.op_type in ("Gather", "Slice") and first is not None and bool((first > 0).all())

    return not all(map(other_axes, readers(shape.outputs[0])))


def _keep_first_convolutions_apart(builder: Builder) -> int:
    """Insert a MaxPool after each quantized convolution with a bias that no such convolution comes before."""
    after: set[ir.Value] = set()
    changed = 0
    for node in list(builder.graph):
        biased = node.op_type == "Conv" and is_dequantize(producer(node.inputs[0])) and len(node.inputs) > 2
        later = any(value in after for value in node.inputs)
        if biased or later:
            after.update(node.outputs)
        if biased and not later:
            last = node
            while (limit := only_reader(last.outputs[0], *LIMITING)) is not None:
                last = limit
            insert_barrier(builder, last.outputs[0], len(attribute(node, "kernel_shape")))
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
