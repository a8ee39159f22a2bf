"""Float weights, and float inputs of integer weights, that ONNX Runtime would quantize by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, is_affine
from tensorflow_quantization.onnx_graph.operators import SELECTING
from tensorflow_quantization.onnx_graph.quantization import Quantization, source_of
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_quantize,
    only_reader,
    operand,
    producer,
    readers,
    shape_of,
)

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
#: Operators before a QuantizeLinear that ONNX Runtime removes, fuses with the weights, or swaps with the quantizer.
_PASSED = SELECTING | {"Clip", "Relu"}


def float_weights(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Weighted operators between integers that have float weights.

    ONNX Runtime 1.32 quantizes such weights to int8 with one scale for all channels, even of a ConvTranspose, which
    has no integer kernel. Measured: 12 to 34 dB with weights of unequal channels, for Conv, ConvTranspose and
    Gemm, directly before a QuantizeLinear or before the operators in `_PASSED` and affine ones, and for a MatMul of
    rank 2 with the Add of a vector, directly before a QuantizeLinear; not for other MatMuls, other activations, or a
    float output. A Max with the lowest float before the operator keeps its weights.

    Args:
        nodes: nodes of a graph.

    Yields:
        The Conv, ConvTranspose, Gemm or MatMul.
    """
    for node in nodes:
        weighted = node.op_type in _WEIGHTED or _becomes_gemm(node)
        between = source_of(operand(node, 0)) is not None and _is_quantized(node.outputs[0])
        if weighted and between and constant(operand(node, 1)) is not None:
            yield node


def weights_of_float_inputs(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """The DequantizeLinear of weights, without blocks, that multiply floats.

    ONNX Runtime 1.32 makes a MatMulNBits of a MatMul, or of a Gemm with `transB` of 0, which quantizes the floats to 8
    bits for each row. Measured: 38 dB with one large channel, for weights with a scale for each channel or for all. A
    Max with the lowest float after the DequantizeLinear keeps them apart.

    Args:
        nodes: nodes of a graph.
    """
    for node in nodes:
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
            weights = producer(operand(node, 1), "DequantizeLinear")
            integers = None if weights is None else constant(operand(weights, 0))
            if integers is None or Quantization.of(weights).block_size or source_of(operand(node, 0)) is not None:
                continue
            yield weights


def _becomes_gemm(node: ir.Node) -> bool:
    """Whether this is a MatMul of rank 2 before the Add of a vector and a QuantizeLinear."""
    add = only_reader(node.outputs[0], "Add") if node.op_type == "MatMul" else None
    if add is None or len(shape_of(node.outputs[0]) or (None, None)) != 2:
        return False
    shift = constant_of(add)
    return shift is not None and shift.ndim == 1 and any(map(is_quantize, readers(add.outputs[0])))


def _is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear reads a value, directly or behind such operators."""
    return any(
        is_quantize(node) or ((node.op_type in _PASSED or is_affine(node)) and any(map(_is_quantized, node.outputs)))
        for node in readers(value)
    )
