"""Normalizations before which OpenVINO drops a factor, although epsilon makes it matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.quantization import Quantization, source_of
from tensorflow_quantization.onnx_graph.queries import is_dequantize, is_quantize, moves_only, operand, producer

#: Operators that subtract the mean and divide by the root of variance and epsilon.
_NORMALIZATIONS = frozenset({"InstanceNormalization", "LayerNormalization"})
#: Operators past which a factor moves.
_PASSED = frozenset({"AveragePool", "Identity", "MaxPool", "Relu", "Reshape", "Slice", "Squeeze", "Transpose"})
_PASSED |= {"GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Unsqueeze"}
#: Operators whose weights take a factor in that comes after them.
_WEIGHTED = _NORMALIZATIONS | {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"}


def scaled_normalizations(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Normalizations of scaled tensors, each with the operator whose factor is dropped.

    In a file with quantizers, OpenVINO 2026.4 drops a factor before a normalization. Without epsilon, that changes
    nothing; with it, the less the variance, the more. Measured: a product with a constant that is not along the
    normalized axis; the scale of integers with zero point 0; and a sum with a dequantized tensor, the scale of which
    becomes a factor of the sum; directly, or with operators between that move values, pools, reductions or Relu. A Max
    before the normalization keeps them apart. OpenVINO knows a normalization of several operators, too: it starts with
    the difference from the mean.

    Args:
        nodes: nodes of a graph.

    Yields:
        (normalization, or the Sub that it starts with; operator).
    """
    nodes = list(nodes)
    if any(map(is_quantize, nodes)):
        for node in nodes:
            normalizes = node.op_type in _NORMALIZATIONS or _subtracts_mean(node)
            scaled = _scaled(operand(node, 0)) if normalizes else None
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
            if numbers is None or numbers.shape[-1:] not in ((), (1,)):
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


def _takes_factors(node: ir.Node | None) -> bool:
    """Whether a factor after an operator becomes a part of its weights, or of a sum with constants."""
    return node is not None and (node.op_type in _WEIGHTED or is_affine(node))
