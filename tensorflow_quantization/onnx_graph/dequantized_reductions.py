"""Reductions of dequantized tensors that OpenVINO computes in integers, and wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.channelwise_reductions import SELECTING_REDUCTIONS, reduced_axes
from tensorflow_quantization.onnx_graph.operators import SELECTING
from tensorflow_quantization.onnx_graph.quantization import same_parameters
from tensorflow_quantization.onnx_graph.queries import (
    is_dequantize,
    is_quantize,
    moves_only,
    only_reader,
    operand,
    producer,
    shape_of,
)

#: Reductions past which scales move.
LINEAR_REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
#: Activations past which scales move.
_SLOPES = frozenset({"LeakyRelu", "PRelu", "Relu"})
#: Operators past which scales move to a reduction.
_PASSED = LINEAR_REDUCTIONS | SELECTING | _SLOPES | {"AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool"}
_PASSED |= {"Neg", "Resize"}


def dequantized_reductions(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Reductions whose result OpenVINO 2026.4 computes from integers, and wrong, each with the DequantizeLinear.

    Measured, directly after the DequantizeLinear, and with operators between past which scales move:

    - A mean or sum along axis 1 of a tensor of three axes, such as the steps of a sequence: only the first sample is
      right, unless a quantizer alone reads the result.
    - A mean or sum of a tensor that was multiplied by constants that differ along an axis, with a quantizer of the
      result.
    - A maximum or minimum and a quantizer with another scale or zero point than those of the DequantizeLinear.

    A Max with the lowest float before the reduction keeps it in float.

    Args:
        nodes: nodes of a graph.

    Yields:
        (reduction, DequantizeLinear).
    """
    for node in nodes:
        source, differ = _source(node) if node.op_type in LINEAR_REDUCTIONS else (None, False)
        if source is None:
            continue
        if node.op_type in SELECTING_REDUCTIONS:
            quantizer = _quantizer(node.outputs[0])
            wrong = quantizer is not None and not same_parameters(source, quantizer)
        else:
            quantized = is_quantize(only_reader(node.outputs[0]))
            wrong = differ if quantized else _reduces_steps(node)
        if wrong:
            yield node, source


def _source(reduction: ir.Node) -> tuple[ir.Node | None, bool]:
    """The DequantizeLinear that a tensor comes from, and whether constants that differ along an axis come after it."""
    value, differ = operand(reduction, 0), False
    while (node := producer(value)) is not None and not is_dequantize(node):
        if is_affine(node):
            numbers = constant_of(node)
            differ = differ or numbers is None or numbers.size > 1
            value = data_of(node)
        elif node.op_type in _PASSED:
            value = operand(node, 0)
        else:
            return None, differ
    return node, differ


def _quantizer(value: ir.Value) -> ir.Node | None:
    """The QuantizeLinear that alone reads a tensor, perhaps moved, with constants, or after slopes."""
    node = only_reader(value)
    while node is not None and (moves_only(node) or is_affine(node) or node.op_type in _SLOPES):
        node = only_reader(node.outputs[0])
    return node if is_quantize(node) else None


def _reduces_steps(reduction: ir.Node) -> bool:
    """Whether axis 1 of three is among the reduced ones."""
    shape = shape_of(operand(reduction, 0))
    return shape is None or (len(shape) == 3 and 1 in (reduced_axes(reduction, 3) or (1,)))
