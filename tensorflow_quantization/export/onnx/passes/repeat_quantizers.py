"""Repeats a quantizer behind what only moves integers, and before a concatenation.

A runtime runs an operator in integers if DequantizeLinear feeds it and QuantizeLinear reads it. What comes out of a
MaxPool or a Reshape of dequantized integers are the same integers, so the same QuantizeLinear and DequantizeLinear
behind it change nothing; and a concatenation that is quantized is one of quantized parts.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, operand, producer, quantizer_pair

#: Of the meta data of integers: the quantizer is for all that read the tensor, not for one of them.
SHARED = "shared_quantizer"
#: Operators whose output holds elements of their first input and nothing else.
MOVING = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Slice", "Split", "Squeeze", "Unsqueeze", "Gather", "Pad"}
)
#: Operators that a runtime has an integer kernel of.
_COMPUTING = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool"}
    | {"MatMul", "Mul"}
)


def repeat_quantizers(builder: Builder) -> None:
    for node in list(builder.graph):
        if node.op_type in MOVING and moves_only(node):
            for output in node.outputs:
                _repeat_behind(builder, node, output)
    for node in reversed(list(builder.graph)):
        if node.op_type == "Concat":
            _repeat_before(builder, node)


def moves_only(node: ir.Node) -> bool:
    if node.op_type != "Pad":
        return True
    value = operand(node, 2)
    constant = array(value)
    return value is None or (constant is not None and not constant.any())  # zero is an integer of every scheme


def source_of(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of the integers that a value is, moved perhaps."""
    while (moving := producer(value, *MOVING)) is not None and moves_only(moving):
        value = operand(moving, 0)
    return producer(value, "DequantizeLinear")


def _repeat_behind(builder: Builder, node: ir.Node, output: ir.Value) -> None:
    dequantize = producer(operand(node, 0), "DequantizeLinear")
    if dequantize is None or array(operand(dequantize, 0)) is not None:
        return
    readers = [use.node for use in output.uses()]
    if output.is_graph_output() or not any(r.op_type in _COMPUTING | MOVING for r in readers):
        return
    if any(r.op_type == "QuantizeLinear" for r in readers):
        return
    pair = quantizer_pair(builder, output, dequantize.inputs[1:])
    builder.graph.insert_after(node, pair)
    for reader in readers:
        for index, value in enumerate(reader.inputs):
            if value is output:
                reader.replace_input_with(index, pair[1].outputs[0])


def _repeat_before(builder: Builder, node: ir.Node) -> None:
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or not readers[0].outputs[0].meta.get(SHARED):
        return
    (quantize,) = readers
    for index, value in enumerate(node.inputs):
        dequantize = producer(value, "DequantizeLinear")
        if value is None or (dequantize is not None and same_parameters(dequantize, quantize)):
            continue
        pair = quantizer_pair(builder, value, quantize.inputs[1:])
        pair[0].outputs[0].meta[SHARED] = True
        builder.graph.insert_before(node, pair)
        node.replace_input_with(index, pair[1].outputs[0])


def same_parameters(a: ir.Node, b: ir.Node) -> bool:
    return all(
        (x := array(operand(a, i))) is not None
        and (y := array(operand(b, i))) is not None
        and x.dtype == y.dtype
        and (x == y).all()
        for i in (1, 2)
    )
