"""Normalizations before which OpenVINO drops a factor, although epsilon makes it matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.channelwise_reductions import reduced_axes
from tensorflow_quantization.onnx_graph.lost_scales import is_unbiased_product
from tensorflow_quantization.onnx_graph.operators import MOVING
from tensorflow_quantization.onnx_graph.quantization import Quantization, source_of
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    is_dequantize,
    is_quantize,
    moves_only,
    operand,
    producer,
    shape_of,
)

#: Operators that subtract the mean and divide by the root of variance and epsilon.
_NORMALIZATIONS = frozenset({"InstanceNormalization", "LayerNormalization"})
#: Operators past which a factor moves.
_PASSED = frozenset({"AveragePool", "Identity", "MaxPool", "Relu", "Reshape", "Slice", "Squeeze", "Transpose"})
_PASSED |= {"GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Unsqueeze"}
#: Further operators past which the scales of a product of integers move.
_PASSED_BY_SCALES = frozenset({"Cast", "Clip", "Dropout", "LeakyRelu", "Neg", "PRelu", "Resize"})
#: Operators whose weights take a factor in that comes after them.
_WEIGHTED = _NORMALIZATIONS | {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"}


def scaled_normalizations(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Normalizations of scaled tensors, each with the operator whose factor is dropped.

    In a file with quantizers, OpenVINO 2026.4 drops a factor before a normalization. Without epsilon, that changes
    nothing; with it, the less the variance, the more. Measured: a product with a constant that is not along the
    normalized axis; the scale of integers with zero point 0; and a sum with a dequantized tensor, the scale of which
    becomes a factor of the sum; directly, or with operators between that move values, pools, reductions or Relu; and
    the scales of a product of integers without a bias, or with one of zeros, if they do not vary along a normalized
    axis. A Max before the normalization keeps them apart. OpenVINO knows a normalization of several operators, too: it
    starts with the difference from the mean.

    Args:
        nodes: nodes of a graph.

    Yields:
        (normalization, or the Sub that it starts with; operator).
    """
    nodes = list(nodes)
    if any(map(is_quantize, nodes)):
        for node in nodes:
            normalizes = node.op_type in _NORMALIZATIONS or _subtracts_mean(node)
            scaled = (_scaled(operand(node, 0)) or _product(node)) if normalizes else None
            if scaled is not None:
                yield node, scaled


def _subtracts_mean(node: ir.Node) -> bool:
    mean = producer(operand(node, 1), "ReduceMean") if node.op_type == "Sub" else None
    return mean is not None and operand(mean, 0) is operand(node, 0)


def _scaled(value: ir.Value | None) -> ir.Node | None:
    """The operator that makes a tensor, for OpenVINO, a factor times another one."""
    factor: ir.Node | None = None
    while True:
        node = producer(value)
        if node is not None and is_dequantize(node):
            return (factor or node) if Quantization.of(node).zero == 0 else None
        if node is not None and node.op_type in ("Div", "Mul") and is_affine(node):
            numbers, value = constant_of(node), data_of(node)
            if numbers is None or not _is_factor(numbers):
                return None
            factor = node if (numbers != 1).any() else factor
        elif node is not None and (moves_only(node) if factor else node.op_type in _PASSED):
            value = operand(node, 0)
        elif factor is not None:
            return None if _takes_factors(node) else factor
        elif node is not None and node.op_type in ("Add", "Sub") and not is_affine(node):
            return node if any(source_of(term) is not None for term in node.inputs) else None
        else:
            return None


def _product(normalization: ir.Node) -> ir.Node | None:
    """The product of integers whose scales do not vary along a normalized axis."""
    value, passed = operand(normalization, 0), list[ir.Node]()
    while (node := producer(value)) is not None and not is_unbiased_product(node):
        if node.op_type in ("Div", "Mul") and _is_factor(constant_of(node)):
            value = data_of(node)
        elif moves_only(node) or node.op_type in _PASSED | _PASSED_BY_SCALES:
            value = operand(node, 0)
        else:
            return None
        passed.append(node)
    if node is None or (node.op_type != "Conv" and _quantization(node, 0).zero != 0):
        return None  # OpenVINO multiplies floats there
    scales = _quantization(node, 1).scale
    if scales is None or scales.size == 1:
        return node
    axis: int | None = -1 if node.op_type == "MatMul" else 1
    for step in reversed(passed):
        axis = None if axis is None else _axis_after(step, axis, scales.size)
    return None if axis is None or _normalizes(normalization, axis) else node


def _quantization(product: ir.Node, index: int) -> Quantization:
    source = producer(product.inputs[index])
    assert source is not None
    return Quantization.of(source)


def _axis_after(node: ir.Node, axis: int, channels: int) -> int | None:
    """Where the axis of the channels is after an operator; `None` if the scales of channels do not move past it."""
    if node.op_type == "Transpose" and (order := attribute(node, "perm")):
        return order.index(axis % len(order))
    sizes = shape_of(node.outputs[0])  # a Slice may take some of the channels
    moved = node.op_type in MOVING - {"Slice"} and sizes is not None and sizes[axis:][:1] != (channels,)
    return None if moved or node.op_type == "Clip" else axis


def _normalizes(normalization: ir.Node, axis: int) -> bool:
    rank = len(shape_of(normalization.inputs[0]) or ())
    if not rank:
        return False
    if normalization.op_type == "InstanceNormalization":
        return axis % rank > 1
    if normalization.op_type == "LayerNormalization":
        return axis % rank >= attribute(normalization, "axis", -1) % rank
    mean = producer(normalization.inputs[1])
    return mean is not None and axis % rank in (reduced_axes(mean, rank) or ())


def _is_factor(numbers: np.ndarray | None) -> bool:
    """Whether constants do not vary along the last axis."""
    return numbers is not None and numbers.shape[-1:] in ((), (1,))


def _takes_factors(node: ir.Node | None) -> bool:
    """Whether a factor after an operator becomes a part of its weights, or of a sum with constants."""
    return node is not None and (node.op_type in _WEIGHTED or is_affine(node))
