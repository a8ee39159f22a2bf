"""Folds a batch normalization into the convolution or matrix product before it.

For a float weight it scales the output channels. For a quantized one it scales the scales: the integers stay, so what
training learned with fake-quantization is computed exactly; only a negative factor turns their signs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.builder import Builder
from tensorflow_quantization.export.passes._graph import array, integer, is_private, operand, producer, replace

#: The least scale that float32 holds with full precision.
_TINY = float(np.finfo(np.float32).tiny)


@dataclass
class _Affine:
    """`output` = `input` * factor + shift, one number a channel, in float64."""

    input: ir.Value
    output: ir.Value
    nodes: list[ir.Node]
    factor: np.ndarray
    shift: np.ndarray


@dataclass
class _Linear:
    """An operator with a weight: `weight_node` reads it, `bias_node` adds the bias."""

    weight_node: ir.Node
    bias_node: ir.Node
    bias_index: int
    axis: int


def fold_batch_norm(builder: Builder) -> None:
    for node in list(builder.graph):
        affine = _read_batch_norm(node) or _read_multiply_add(node)
        linear = _find_linear(affine) if affine is not None else None
        if affine is None or linear is None:
            continue
        bias = array(operand(linear.bias_node, linear.bias_index))
        if bias is None and linear.bias_index < len(linear.bias_node.inputs):
            continue  # not a constant
        if not _scale_weight(builder, linear, affine.factor):
            continue
        bias = affine.shift if bias is None else bias.astype(np.float64) * affine.factor + affine.shift
        result = _set_bias(builder, linear, bias.astype(np.float32))
        replace(affine.output, result)
        builder.graph.remove(affine.nodes, safe=True)


def _read_batch_norm(node: ir.Node) -> _Affine | None:
    if node.op_type != "BatchNormalization":
        return None
    source = operand(node, 0)
    weights = [array(operand(node, i)) for i in range(1, 5)]
    if source is None or any(w is None for w in weights):
        return None
    add = producer(source, "Add")
    product = producer(operand(add, 0) if add is not None else source, "MatMul")
    if product is not None and not _has_rows(source, operand(product, 0)):
        return None  # the channels of a matrix product are its last axis, those of this operator the second
    gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in weights)
    factor = gamma / np.sqrt(variance + node.attributes["epsilon"].as_float())
    return _Affine(source, node.outputs[0], [node], factor, beta - mean * factor)


def _read_multiply_add(node: ir.Node) -> _Affine | None:
    """A batch normalization over the last axis: Mul and Add with vectors, behind a matrix product of any rank."""
    if node.op_type != "Mul" or not is_private(node.outputs[0]):
        return None
    factor, source = array(operand(node, 1)), operand(node, 0)
    (add,) = node.outputs[0].consumers()
    shift = array(operand(add, 1)) if add.op_type == "Add" else None
    if source is None or factor is None or shift is None or factor.ndim != 1 or factor.shape != shift.shape:
        return None
    if producer(source, "MatMul", "Add") is None:
        return None
    return _Affine(source, add.outputs[0], [node, add], factor.astype(np.float64), shift.astype(np.float64))


def _find_linear(affine: _Affine) -> _Linear | None:
    if not is_private(affine.input):
        return None
    node = affine.input.producer()
    if node is None:
        return None
    if node.op_type == "Conv":
        return _Linear(node, node, 2, 0)
    if node.op_type == "ConvTranspose" and integer(node, "group", 1) == 1:
        return _Linear(node, node, 2, 1)
    if node.op_type == "Gemm" and not integer(node, "transB", 0):
        return _Linear(node, node, 2, 1)
    if node.op_type == "MatMul":
        # Without a bias the Add does not exist yet; `_set_bias` makes it.
        return _Linear(node, node, 2, 1) if _is_matrix(node) else None
    product = producer(operand(node, 0), "MatMul") if node.op_type == "Add" else None
    if product is not None and is_private(product.outputs[0]) and _is_matrix(product):
        bias = array(operand(node, 1))
        if bias is not None and bias.ndim == 1:
            return _Linear(product, node, 1, 1)
    return None


def _has_rows(*values: ir.Value | None) -> bool:
    """Whether the first of these whose shape is known has two axes."""
    shapes = [value.shape for value in values if value is not None and value.shape is not None]
    return bool(shapes) and len(shapes[0]) == 2


def _is_matrix(product: ir.Node) -> bool:
    weight = operand(product, 1)
    dequantize = producer(weight, "DequantizeLinear")
    weight = array(operand(dequantize, 0) if dequantize is not None else weight)
    return weight is not None and weight.ndim == 2


def _scale_weight(builder: Builder, linear: _Linear, factor: np.ndarray) -> bool:
    """Multiply the weight by `factor` along its output channels; `False`, and nothing done, if that is not possible."""
    node = linear.weight_node
    value = operand(node, 1)
    weight = array(value)
    if value is not None and weight is not None:
        shape = [1] * weight.ndim
        shape[linear.axis] = -1
        scaled = (weight * factor.reshape(shape)).astype(np.float32)
        node.replace_input_with(1, builder.initializer(f"{value.name}_folded", scaled))
        return True
    dequantize = producer(value, "DequantizeLinear")
    if dequantize is None or value is None or not is_private(value):
        return False
    return _scale_scales(builder, dequantize, factor, linear.axis)


def _scale_scales(builder: Builder, dequantize: ir.Node, factor: np.ndarray, axis: int) -> bool:
    values = [operand(dequantize, i) for i in range(3)]
    integers, scale, zero_point = (array(v) for v in values)
    if integers is None or scale is None or zero_point is None:
        return False
    if scale.ndim and integer(dequantize, "axis", 1) != axis:
        return False
    shape = [1] * integers.ndim
    shape[axis] = -1
    scale = np.broadcast_to(scale, factor.shape)
    zero_point = np.broadcast_to(zero_point, factor.shape)
    folded = scale.astype(np.float64) * np.abs(factor)
    if not (folded < np.finfo(np.float32).max).all():
        return False
    # A channel that is multiplied by (almost) nothing has zeros for integers: scales have to be positive.
    vanishes = folded < _TINY
    zeros = zero_point.astype(np.int32).reshape(shape)
    signs = np.where(vanishes, 0, np.sign(factor)).astype(np.int32).reshape(shape)
    turned = zeros + signs * (integers.astype(np.int32) - zeros)
    limits = np.iinfo(integers.dtype)
    if turned.min() < limits.min or turned.max() > limits.max:
        return False
    arrays = (
        turned.astype(integers.dtype),
        np.where(vanishes, scale, folded).astype(np.float32),
        zero_point,
    )
    for index, (old, new) in enumerate(zip(values, arrays, strict=True)):
        before = array(old)
        if old is None or before is None or np.array_equal(before, new):
            continue
        dequantize.replace_input_with(index, builder.initializer(f"{old.name}_folded", new))
    dequantize.attributes["axis"] = ir.AttrInt64("axis", axis)
    return True


def _set_bias(builder: Builder, linear: _Linear, bias: np.ndarray) -> ir.Value:
    """Give the operator this bias; what it then computes."""
    node = linear.bias_node
    path = (node.name or "").rsplit("/", 1)[0]
    old = operand(node, linear.bias_index)
    value = builder.initializer(f"{old.name}_folded" if old is not None else f"{path}/bias_folded", bias)
    if node.op_type == "MatMul":
        name = builder.unique(f"{path}/Add")
        add = ir.node("Add", [node.outputs[0], value], outputs=[ir.Value(name=name)], name=name)
        builder.graph.insert_after(node, add)
        return add.outputs[0]
    if len(node.inputs) <= linear.bias_index:
        node.resize_inputs(linear.bias_index + 1)
    node.replace_input_with(linear.bias_index, value)
    return node.outputs[0]
