"""Read and change operators with a weight and a bias: convolutions and matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.operators import BIASES
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    layer_of,
    only_reader,
    operand,
    output_axis,
    producer,
)


@dataclass
class Linear:
    """A convolution or matrix product with a constant weight.

    Attributes:
        node: the operator; the weight is its second input.
        bias_node: the node that adds the bias: `node`, or the Add after a MatMul.
        weight: the constant weight, integers if it is quantized.
        is_float: whether the weight is float.
        axis: the axis of the output channels in the weight.
    """

    node: ir.Node
    bias_node: ir.Node
    weight: np.ndarray
    is_float: bool
    axis: int

    @property
    def bias_index(self) -> int:
        """The index of the bias among the inputs of `bias_node`."""
        return 1 if self.bias_node.op_type == "Add" else 2

    @property
    def bias(self) -> np.ndarray | None:
        """The constant bias; `None` if there is none."""
        return constant(operand(self.bias_node, self.bias_index))

    @property
    def channels(self) -> int:
        """The number of output channels."""
        return self.weight.shape[self.axis]

    @property
    def channel_axis(self) -> int:
        """The channel axis of input and output, counted from the end: for images, it is the second axis."""
        return 1 - self.weight.ndim

    @property
    def output(self) -> ir.Value:
        """The result with the bias added."""
        return self.bias_node.outputs[0]


def read_linear(node: ir.Node) -> Linear | None:
    """The linear operator whose weight `node` reads; `None` if there is none, or its weight or bias is not constant."""
    if node.op_type not in BIASES or {"transA", "transB", "alpha", "beta"} & set(node.attributes):
        return None
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return None
    value = operand(node, 1)
    dequantize = producer(value, "DequantizeLinear")
    weight = constant(value if dequantize is None else operand(dequantize, 0))
    axis = None if weight is None else output_axis(node, weight.ndim)
    if weight is None or axis is None or (node.op_type == "MatMul" and weight.ndim != 2):
        return None
    linear = Linear(node, _bias_node(node), weight, dequantize is None, axis)
    return linear if linear.bias is not None or operand(linear.bias_node, linear.bias_index) is None else None


def _bias_node(node: ir.Node) -> ir.Node:
    """The Add of a constant vector after a MatMul; otherwise `node`."""
    add = only_reader(node.outputs[0], "Add") if node.op_type == "MatMul" else None
    bias = constant(operand(add, 1))
    return add if add is not None and bias is not None and bias.ndim == 1 else node


def find_linear(value: ir.Value | None) -> Linear | None:
    """The linear operator that computes `value`, bias included; `None` if there is none."""
    node = producer(value)
    if node is None:
        return None
    product = producer(operand(node, 0), "MatMul") if node.op_type == "Add" else None
    linear = read_linear(product or node)
    return linear if linear is not None and linear.output is value else None


def set_bias(builder: Builder, linear: Linear, bias: np.ndarray) -> ir.Value:
    """Set the bias of the operator, and return its output; all readers read this output."""
    node = linear.bias_node
    old = operand(node, linear.bias_index)
    value = builder.initializer(f"{old.name}_folded" if old is not None else f"{layer_of(node)}/bias_folded", bias)
    if node.op_type == "MatMul":
        (product,) = node.outputs
        total = builder.insert("Add", [product, value], after=node, like=product)
        replace(product, total)
        total.producer().replace_input_with(0, product)  # `replace` made the Add read its own output
        return total
    if len(node.inputs) <= linear.bias_index:
        node.resize_inputs(linear.bias_index + 1)
    node.replace_input_with(linear.bias_index, value)
    return node.outputs[0]
