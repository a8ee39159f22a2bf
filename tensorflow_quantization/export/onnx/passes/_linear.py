"""Operators with a weight and a bias: convolutions and matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, integer, is_private, operand, producer, replace


@dataclass
class Linear:
    """A convolution or matrix product.

    Attributes:
        node: it reads the weight as its second input.
        bias_node: it adds the bias: `node` itself, or the Add behind a MatMul.
        weight: integers where it is quantized.
        is_float: whether it is not.
        axis: of the weight, that of the output channels.
    """

    node: ir.Node
    bias_node: ir.Node
    weight: np.ndarray
    is_float: bool
    axis: int

    @property
    def bias_index(self) -> int:
        return 1 if self.bias_node.op_type == "Add" else 2

    @property
    def bias(self) -> np.ndarray | None:
        """The constant, `None` if there is none."""
        return array(operand(self.bias_node, self.bias_index))

    @property
    def channels(self) -> int:
        """How many it computes."""
        return self.weight.shape[self.axis]

    @property
    def channel_axis(self) -> int:
        """That of the channels in what it reads and computes, from the last one: the second of an image's."""
        return 1 - self.weight.ndim

    @property
    def output(self) -> ir.Value:
        return self.bias_node.outputs[0]


def read_linear(node: ir.Node) -> Linear | None:
    """The operator that reads its weight in `node`; `None` if that is none, or weight or bias are no constants."""
    axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}.get(node.op_type)
    if axis is None or {"transA", "transB", "alpha", "beta"} & set(node.attributes):
        return None
    if node.op_type == "ConvTranspose" and integer(node, "group", 1) != 1:
        return None
    value = operand(node, 1)
    dequantize = producer(value, "DequantizeLinear")
    weight = array(value if dequantize is None else operand(dequantize, 0))
    if weight is None or (node.op_type == "MatMul" and weight.ndim != 2):
        return None
    linear = Linear(node, _bias_node(node), weight, dequantize is None, axis)
    return linear if linear.bias is not None or operand(linear.bias_node, linear.bias_index) is None else None


def _bias_node(node: ir.Node) -> ir.Node:
    """The Add of a vector behind a MatMul, otherwise the node."""
    (product,) = node.outputs
    if node.op_type != "MatMul" or not is_private(product):
        return node
    (reader,) = (use.node for use in product.uses())
    bias = array(operand(reader, 1)) if reader.op_type == "Add" else None
    return reader if bias is not None and bias.ndim == 1 else node


def find_linear(value: ir.Value | None) -> Linear | None:
    """The operator that computes `value`, its bias included."""
    node = value.producer() if value is not None else None
    if node is None:
        return None
    product = producer(operand(node, 0), "MatMul") if node.op_type == "Add" else None
    linear = read_linear(product or node)
    return linear if linear is not None and linear.output is value else None


def set_bias(builder: Builder, linear: Linear, bias: np.ndarray) -> ir.Value:
    """Give the operator this bias; what it then computes, and all that read it."""
    node = linear.bias_node
    path = (node.name or "").rsplit("/", 1)[0]
    old = operand(node, linear.bias_index)
    value = builder.initializer(f"{old.name}_folded" if old is not None else f"{path}/bias_folded", bias)
    if node.op_type == "MatMul":
        name = builder.unique(f"{path}/Add")
        (product,) = node.outputs
        total = ir.Value(name=name, shape=product.shape, type=product.type)
        replace(product, total)
        builder.graph.insert_after(node, ir.node("Add", [product, value], outputs=[total], name=name))
        return total
    if len(node.inputs) <= linear.bias_index:
        node.resize_inputs(linear.bias_index + 1)
    node.replace_input_with(linear.bias_index, value)
    return node.outputs[0]
