"""Constants after a matrix product that OpenVINO applies to the wrong axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import ARITHMETIC, constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.operators import ACTIVATIONS
from tensorflow_quantization.onnx_graph.quantization import Quantization, source_of
from tensorflow_quantization.onnx_graph.queries import is_constant, is_dequantize, operand, producer, shape_of

#: Operators that OpenVINO computes together with a product, before a sum or product with constants.
_FUSED = ACTIVATIONS | {"Abs", "Identity", "Neg"}
#: Operators past which it moves factors to a product of integers.
_PASSED = frozenset({"Identity", "Neg", "Squeeze", "Unsqueeze"})


def misplaced_constants(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Matrix products with weights, each with an operator whose constants OpenVINO 2026.4 applies to the wrong axis.

    Measured, with operators between that add or multiply by constants; right if the integers have a zero point:

    - Factors of a product of integers that differ along another axis than the last one, if a size is unknown, such as
      the batch: arbitrary numbers.
    - Factors, summands or slopes that differ along axis 1 alone, in a tensor of four axes, after a product of integers
      or floats, with activations between, too: OpenVINO takes them for the units of the product. It does not load the
      file, or, with as many of them as units, returns something else.

    A Max before the operator keeps them apart; constants along axis 1, a 1x1 MaxPool.

    Args:
        nodes: nodes of a graph.

    Yields:
        (MatMul, operator).
    """
    for node in nodes:
        axes, shape = _axes_of_constant(node)
        product = None
        if node.op_type in ("BatchNormalization", "Div", "Mul") and None in shape and axes - {len(shape) - 1}:
            product = _product(data_of(node), _PASSED)
            product = product if product is not None and _is_integer(product) else None
        if product is None and is_taken_for_units(node):
            product = _product(data_of(node), _FUSED)
        if product is not None and not _has_zero_point(product):
            yield product, node


def is_taken_for_units(node: ir.Node) -> bool:
    """Whether the constants of an operator differ along axis 1 alone, in a tensor of four axes or more."""
    axes, shape = _axes_of_constant(node)
    return axes == {1} and len(shape) > 3


def _axes_of_constant(node: ir.Node) -> tuple[set[int], tuple[int | None, ...]]:
    """The axes along which the constants of an operator differ, and the shape of the tensor; empty: not known."""
    shape = shape_of(data_of(node))
    if node.op_type == "BatchNormalization":
        return ({1}, shape) if shape is not None else (set(), ())
    numbers = constant_of(node) if node.op_type in ARITHMETIC | {"PRelu"} else None
    if numbers is None or shape is None or numbers.ndim > len(shape):
        return set(), ()
    first = len(shape) - numbers.ndim
    return {first + axis for axis, size in enumerate(numbers.shape) if size > 1}, shape


def _product(value: ir.Value | None, passed: frozenset[str]) -> ir.Node | None:
    """The product with weights that a tensor is computed from, with constants and these operators."""
    while (node := producer(value)) is not None and node.op_type != "MatMul":
        if not is_affine(node) and node.op_type not in passed:
            return None
        value = data_of(node)
    return node if node is not None and is_constant(operand(node, 1)) else None


def _is_integer(product: ir.Node) -> bool:
    return source_of(operand(product, 0)) is not None and is_dequantize(producer(operand(product, 1)))


def _has_zero_point(product: ir.Node) -> bool:
    """Whether the integers that are multiplied by the weights have a zero point other than 0."""
    source = source_of(operand(product, 0))
    return source is not None and Quantization.of(source).zero != 0
