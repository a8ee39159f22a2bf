"""For ONNX Runtime: a product with a quantized matrix that gives floats, as Gemm with an integer bias.

With a bias of floats it is computed in floats; with one of int32, at the scale of the products, in integers. That scale
is so fine that rounding the bias to it is below what float32 rounds in the sum.

A Gemm takes two axes. Of a product of more, a sequence of vectors, the leading ones are joined before and split up
behind it, as ONNX Runtime itself does where it knows all sizes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import (
    array,
    bias_in_steps,
    is_private,
    operand,
    producer,
    replace,
    shape_of,
)
from tensorflow_quantization.export.onnx.values import Shape


def integer_bias(builder: Builder) -> None:
    for add in list(builder.graph):
        product = producer(operand(add, 0), "MatMul") if add.op_type == "Add" else None
        bias = array(operand(add, 1)) if product is not None else None
        if product is None or bias is None or bias.ndim != 1 or not is_private(product.outputs[0]):
            continue
        data, weight = (producer(x, "DequantizeLinear") for x in product.inputs)
        shape = shape_of(operand(product, 0))
        if data is None or weight is None or shape is None or shape[1:-1].count(None):
            continue
        if len(shape) == 2 and any(use.node.op_type == "QuantizeLinear" for use in add.outputs[0].uses()):
            continue
        integers, data_scale, scales = array(operand(weight, 0)), array(operand(data, 1)), array(operand(weight, 1))
        if integers is None or integers.ndim != 2 or data_scale is None or scales is None:
            continue
        scale = np.broadcast_to(data_scale * scales, bias.shape).astype(np.float32)
        _make_gemm(
            builder, add, product, bias_in_steps(builder, add, bias, scale), shape, [-1, *shape[1:-1], len(bias)]
        )


def _make_gemm(
    builder: Builder, add: ir.Node, product: ir.Node, bias: ir.Node, before: Shape, after: list[int | None]
) -> None:
    """Turn the Add into a Gemm of a tensor of shape `before`; the MatMul then is read by nobody."""
    path = (product.name or "").rsplit("/", 1)[0]
    (data, weight), old = product.inputs, add.outputs[0]
    nodes = [bias]
    if len(before) > 2:
        nodes.append(_reshape(builder, path, data, [-1, before[-1]]))
        data = nodes[-1].outputs[0]
    name = builder.unique(f"{path}/Gemm")
    nodes.append(ir.node("Gemm", [data, weight, bias.outputs[0]], outputs=[ir.Value(name=name)], name=name))
    if len(before) > 2:
        nodes.append(_reshape(builder, path, nodes[-1].outputs[0], after))
    builder.graph.insert_after(add, nodes)
    new = nodes[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    replace(old, new)


def _reshape(builder: Builder, path: str, x: ir.Value | None, dims: list[int | None]) -> ir.Node:
    name, target = builder.unique(f"{path}/Reshape"), builder.constant(np.asarray(dims, np.int64))
    return ir.node("Reshape", [x, target], outputs=[ir.Value(name=name)], name=name)
