"""Transposed convolutions with points that no input reaches, where OpenVINO adds no bias."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import ARITHMETIC, is_affine
from tensorflow_quantization.onnx_graph.lost_scales import is_unbiased_product
from tensorflow_quantization.onnx_graph.operators import MOVING
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    is_dequantize,
    is_quantize,
    only_reader,
    operand,
    producer,
    shape_of,
)


def uncovered_points(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Quantized transposed convolutions with strides beyond their kernel, a bias, and a quantizer after them.

    Between the inputs are points of the bias alone. OpenVINO 2026.4 leaves the bias out there. Measured: directly
    before the quantizer, or with operators between that move values or multiply by constants; constants that are added
    count as a bias. Right without a bias, with another zero point of the input than 0, and with any other operator
    between, such as a Max with the lowest float.

    Args:
        nodes: nodes of a graph.

    Yields:
        (ConvTranspose, QuantizeLinear).
    """
    for node in nodes:
        if node.op_type != "ConvTranspose" or not _has_gaps(node):
            continue
        biased, reader = not is_unbiased_product(node), only_reader(node.outputs[0])
        while reader is not None and (reader.op_type in MOVING | {"Neg"} or is_affine(reader)):
            biased = biased or reader.op_type in ARITHMETIC - {"Div", "Mul"} or reader.op_type == "BatchNormalization"
            reader = only_reader(reader.outputs[0])
        if biased and reader is not None and is_quantize(reader):
            yield node, reader


def _has_gaps(node: ir.Node) -> bool:
    """Whether a transposed convolution of integers has strides beyond its kernel, and its input zero point 0."""
    sources = [producer(operand(node, index)) for index in (0, 1)]
    if not all(map(is_dequantize, sources)) or Quantization.of(sources[0]).zero != 0:
        return False
    strides, kernel = attribute(node, "strides", ()), (shape_of(operand(node, 1)) or ())[2:]
    dilations = attribute(node, "dilations", [1] * len(kernel))
    return any(
        isinstance(size, int) and (size - 1) * dilation + 1 < stride
        for size, dilation, stride in zip(kernel, dilations, strides, strict=False)
    )
