"""Reductions that OpenVINO computes together with the quantizer after them, and wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import ARITHMETIC, constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.channelwise_reductions import (
    REDUCTIONS,
    SELECTING_REDUCTIONS,
    keeps_axes,
    lies_along,
    reduced_axes,
)
from tensorflow_quantization.onnx_graph.operators import LINEAR_REDUCTIONS
from tensorflow_quantization.onnx_graph.pooled_activations import is_gate
from tensorflow_quantization.onnx_graph.quantization import Quantization, source_of
from tensorflow_quantization.onnx_graph.queries import (
    constant,
    is_dequantize,
    is_quantize,
    only_reader,
    operand,
    producer,
    readers,
    shape_of,
)

#: What may be between a maximum and the quantizer, besides gelu and silu.
_FUSED = frozenset({"Abs", "Clip", "Elu", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "PRelu", "Relu"})
_FUSED |= {"Concat", "Round", "Sigmoid", "Softplus", "Sqrt", "Tanh", "Transpose"}
#: Operators that the scales of a matrix product pass.
_PASSED = LINEAR_REDUCTIONS | {"AveragePool", "Gather", "Identity", "MaxPool", "Resize", "Split", "Squeeze"}
_PASSED |= {"Transpose", "Unsqueeze"}


def quantized_reductions(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Reductions whose result OpenVINO 2026.4 quantizes wrong, each with its QuantizeLinear.

    Measured, with fixed and with unknown sizes:

    - A maximum or minimum of floats and a quantizer, directly or after activations: the result is a whole number. (It
      is right with zero point 0 if nothing reads the integers but a DequantizeLinear that stays.)
    - A reduction, without the reduced axes, of a product of integers and weights without a bias, to rank 2, and a
      quantizer, directly or after factors and shifts: arbitrary numbers.
    - A reduction of axis 1, perhaps among others, without the reduced axes, and one chain of an operator with constants
      along axis 1 of the result, such as BatchNormalization, and a quantizer: OpenVINO applies the constants to
      axis 1 before the reduction. Right if the quantizer comes first and has a zero point.

    A Squeeze of the reduced axes, a Max or a MaxPool after the reduction keeps them apart.

    Args:
        nodes: nodes of a graph.

    Yields:
        (reduction, QuantizeLinear).
    """
    for node in list(nodes):
        quantizer = _mistaken_quantizer(node)
        if quantizer is not None:
            yield node, quantizer


def _mistaken_quantizer(node: ir.Node) -> ir.Node | None:
    """The quantizer after a node, if the node is such a reduction."""
    source, quantizer = operand(node, 0), None
    if node.op_type in SELECTING_REDUCTIONS and source_of(source) is None:
        quantizer = _quantizer(node.outputs[0], _FUSED)
    elif node.op_type in LINEAR_REDUCTIONS and not keeps_axes(node) and _rank(node.outputs[0]) in (None, 2):
        quantizer = _quantizer(node.outputs[0], frozenset()) if _is_product(source) else None
    if quantizer is None and node.op_type in REDUCTIONS and not keeps_axes(node) and _reduces_axis_1(node):
        quantizer = _quantizer_beside_constants(node.outputs[0])
    return quantizer


def _reduces_axis_1(reduction: ir.Node) -> bool:
    rank = _rank(reduction.inputs[0])
    return rank is None or 1 in (reduced_axes(reduction, rank) or (1,))


def _quantizer_beside_constants(value: ir.Value) -> ir.Node | None:
    """A quantizer in a chain of operators after a value, some of which have constants along axis 1."""
    rank = _rank(value) or 2
    quantizer, channelwise = None, False
    while (node := only_reader(value) or _gated(value)) is not None:
        if is_quantize(node):
            if not channelwise and Quantization.of(node).zero != 0:
                return None
            quantizer = node
        elif node.op_type in ARITHMETIC | {"BatchNormalization"}:
            numbers = constant_of(node)
            along = node.op_type == "BatchNormalization" or (numbers is not None and lies_along(numbers, rank))
            channelwise = channelwise or along
        elif not (is_dequantize(node) or node.op_type in _FUSED or _keeps_shape(node) or len(readers(value)) > 1):
            return None
        if quantizer is not None and channelwise:
            return quantizer
        (value,) = node.outputs
    return None


def _quantizer(value: ir.Value, activations: frozenset[str]) -> ir.Node | None:
    """The QuantizeLinear that alone reads a value, directly or after affine operators and these activations."""
    while (node := only_reader(value) or (_gated(value) if activations else None)) is not None:
        if is_quantize(node):
            return node
        fuses = is_affine(node) or node.op_type in activations or len(readers(value)) > 1
        if not fuses and not _keeps_shape(node):
            return None
        (value,) = node.outputs
    return None


def _gated(value: ir.Value) -> ir.Node | None:
    """The product of a value with a function of it, such as gelu or silu."""
    if value.is_graph_output():
        return None
    return next((node for node in readers(value) if node.op_type == "Mul" and is_gate(node, value)), None)


def _keeps_shape(node: ir.Node) -> bool:
    """Whether a Reshape or Flatten changes nothing."""
    before = shape_of(operand(node, 0))
    if node.op_type == "Flatten":
        return before is not None and len(before) == 2
    return node.op_type == "Reshape" and before is not None and before == shape_of(node.outputs[0])


def _rank(value: ir.Value) -> int | None:
    shape = shape_of(value)
    return None if shape is None else len(shape)


def _is_product(value: ir.Value | None) -> bool:
    """Whether a value is a multiple of a product of integers and weights, with nothing added before its scales."""
    last: ir.Node | None = None
    while (node := producer(value)) is not None and node.op_type != "MatMul":
        if _multiplies(node) or node.op_type in ("Add", "Sub"):
            value = data_of(node) if is_affine(node) else None
        else:
            value = operand(node, 0) if node.op_type in _PASSED or _keeps_shape(node) else None
        last = node
    shift = constant_of(last) if last is not None and last.op_type in ("Add", "Sub") else None
    if node is None or (shift is not None and shift.any()):
        return False
    data, weights = source_of(operand(node, 0)), producer(operand(node, 1))
    return data is not None and is_dequantize(weights) and constant(operand(weights, 0)) is not None


def _multiplies(node: ir.Node) -> bool:
    """Whether an operator multiplies by positive constants."""
    numbers = constant_of(node) if node.op_type in ("Div", "Mul") else None
    return numbers is not None and bool((numbers > 0).all())
