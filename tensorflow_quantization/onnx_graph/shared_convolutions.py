"""Quantized convolutions without a bias that several nodes read, which OpenVINO computes without their scales."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import is_affine
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import (
    constant,
    is_dequantize,
    only_reader,
    operand,
    producer,
    readers,
    shape_of,
)

#: Readers that do not take the scales of the convolution, as measured; all others may.
_HARMLESS = frozenset(
    {"Abs", "Clip", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Max", "Min", "ReduceSum", "Selu", "Sigmoid"}
    | {"Softmax", "Softplus", "Sqrt", "Tanh", "Transpose"}
)

#: Operators that the scales of the convolution pass, besides products with constants.
_PASSED = frozenset({"Identity", "Neg", "Squeeze", "Unsqueeze"})


def shared_convolutions(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Convolutions of integers without a bias, or with one of zeros, that several nodes read, each with a reader.

    OpenVINO 2026.4 moves the scales of such a convolution into the operator after it, if a size is known only at run
    time, such as the batch. If there are several readers, or the output of the convolution is an output of the graph,
    one of them gets the sum of the integers. Measured: wrong with Relu, LeakyRelu, PRelu, Add, Mul, BatchNormalization,
    pools, means, Reshape, Concat, Resize and quantizers; right with a bias that is not zero. A transposed convolution
    does the same if the zero point of its input is 0, and several readers of a product with constants do.

    Args:
        nodes: nodes of a graph.

    Yields:
        (Conv or ConvTranspose, a reader that may get integers).
    """
    for node in nodes:
        if node.op_type not in ("Conv", "ConvTranspose") or not all(
            is_dequantize(producer(operand(node, index))) for index in (0, 1)
        ):
            continue
        if not _is_zero(operand(node, 2)):
            continue
        if None not in (shape_of(node.outputs[0]) or (None,)):
            continue
        output = _scaled(node.outputs[0])
        found = readers(output)
        harmed = next((reader for reader in found if reader.op_type not in _HARMLESS), None)
        if harmed is not None and len(found) + output.is_graph_output() > 1:
            yield node, harmed


def _scaled(value: ir.Value) -> ir.Value:
    """A multiple of a value that is read instead of it."""
    while (node := only_reader(value)) is not None and (
        node.op_type in _PASSED or (node.op_type in ("Div", "Mul") and is_affine(node))
    ):
        (value,) = node.outputs
    return value


def _is_zero(bias: ir.Value | None) -> bool:
    """Whether a bias, which may be stored in integers, adds nothing."""
    source = source_of(bias)
    numbers = constant(bias if source is None else operand(source, 0))
    return bias is None or (numbers is not None and not numbers.any())
