"""Operators on dequantized tensors that OpenVINO computes in integers, and wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.channelwise_reductions import SELECTING_REDUCTIONS, reduced_axes
from tensorflow_quantization.onnx_graph.operators import LINEAR_REDUCTIONS, SELECTING
from tensorflow_quantization.onnx_graph.quantization import Quantization, same_parameters, source_of
from tensorflow_quantization.onnx_graph.queries import (
    constant,
    is_dequantize,
    is_quantize,
    moves_only,
    only_reader,
    operand,
    producer,
    shape_of,
)

#: Activations past which scales move.
_SLOPES = frozenset({"LeakyRelu", "PRelu", "Relu"})
#: Operators past which scales move to a reduction.
_PASSED = LINEAR_REDUCTIONS | SELECTING | _SLOPES | {"AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool"}
_PASSED |= {"Neg", "Resize"}


def dequantized_inputs(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Operators that OpenVINO 2026.4 computes from integers, and wrong, each with the DequantizeLinear.

    Measured, directly after the DequantizeLinear, and with operators between past which scales move:

    - A mean or sum along axis 1 of a tensor of three axes, such as the steps of a sequence, and along any if axis 1 is
      the batch: only the first sample is right, unless a quantizer alone reads the result.
    - A mean or sum of a tensor that was multiplied by constants that differ along an axis, with a quantizer of the
      result.
    - A maximum or minimum and a quantizer whose scale or zero point the DequantizeLinear does not have.
    - A Pad, if the integers have a zero point: of axis 1, with a quantizer after it, and of any axis after two
      quantizers in a row, where the file does not load.

    A Max with the lowest float before the operator keeps it in float.

    Args:
        nodes: nodes of a graph.

    Yields:
        (reduction or Pad, DequantizeLinear).
    """
    for node in nodes:
        if node.op_type == "Pad":
            source = source_of(operand(node, 0))
            if source is not None and Quantization.of(source).zero != 0 and _shifts(node, source):
                yield node, source
        elif node.op_type in LINEAR_REDUCTIONS:
            source, differ = _source(node)
            if source is not None and _is_mistaken(node, source, differ):
                yield node, source


def _is_mistaken(reduction: ir.Node, source: ir.Node, differ: bool) -> bool:
    """Whether OpenVINO reduces the integers wrong; `differ`: after factors that differ along an axis."""
    if reduction.op_type in SELECTING_REDUCTIONS:
        quantizer = _quantizer(reduction.outputs[0])
        return quantizer is not None and not same_parameters(source, quantizer)
    return differ if is_quantize(only_reader(reduction.outputs[0])) else _reduces_steps(reduction)


def _shifts(pad: ir.Node, source: ir.Node) -> bool:
    """Whether a Pad of integers pads with what is no zero, or with zero points of a wrong shape."""
    quantize = producer(operand(source, 0))
    if quantize is not None and source_of(operand(quantize, 0)) is not None:
        return True
    pads = constant(operand(pad, 1))
    of_axis_1 = pads is None or bool(pads.reshape(2, -1)[:, 1:2].any())
    return of_axis_1 and _quantizer(pad.outputs[0]) is not None


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
    """Whether axis 1 of three is among the reduced ones, or of unknown size, such as the batch beside steps."""
    shape = shape_of(operand(reduction, 0))
    if shape is None:
        return True
    return len(shape) == 3 and (shape[1] is None or 1 in (reduced_axes(reduction, 3) or (1,)))
