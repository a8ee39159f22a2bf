"""Float weights that ONNX Runtime would quantize by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, is_affine
from tensorflow_quantization.onnx_graph.operators import SELECTING
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import constant, is_quantize, only_reader, operand, readers, shape_of

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
#: Operators before a QuantizeLinear that ONNX Runtime removes, fuses with the weights, or swaps with the quantizer.
_PASSED = SELECTING | {"Clip", "Relu"}


def float_weights(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Weighted operators between integers that have float weights.

    ONNX Runtime 1.32 quantizes such weights to int8 with one scale for all channels, also those of a ConvTranspose,
    which has no integer kernel. Measured: 12 to 34 dB with weights of unequal channels, for Conv, ConvTranspose and
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
