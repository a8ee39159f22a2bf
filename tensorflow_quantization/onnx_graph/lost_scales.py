"""Products of integers without a bias, whose scales OpenVINO loses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import is_affine
from tensorflow_quantization.onnx_graph.channelwise_reductions import REDUCTIONS
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
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


def lost_scales(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Products of integers without a bias, or with one of zeros, whose scales get lost, each with a reader.

    OpenVINO 2026.4 moves the scales of such a product into the operator after it, if a size is known only at run time,
    such as the batch. Measured:

    - If there are several readers of a convolution, or its output is an output of the graph, one of them gets the sum
      of the integers: Relu, LeakyRelu, PRelu, Add, Mul, BatchNormalization, pools, means, Reshape, Concat, Resize,
      quantizers. A transposed convolution does the same if the zero point of its input is 0, and several readers of a
      multiple of the convolution do.
    - If there are several readers of a matrix product, one that adds constants gets wrong numbers.
    - After a MaxPool and a Transpose that moves the channels, or a Reshape that changes their number and a reduction or
      a Clip, the scales are applied to another axis.

    All of it is right with a bias that is not zero.

    Args:
        nodes: nodes of a graph.

    Yields:
        (Conv, ConvTranspose or MatMul; a reader that may get integers).
    """
    for node in nodes:
        if not is_unbiased_product(node) or None not in (shape_of(node.outputs[0]) or (None,)):
            continue
        harmed = _harmed_by_others(node) or _moved_away(node)
        if harmed is not None:
            yield node, harmed


def is_unbiased_product(node: ir.Node) -> bool:
    """Whether a node is a convolution or matrix product of integers, without a bias or with one of zeros."""
    return (
        node.op_type in ("Conv", "ConvTranspose", "MatMul")
        and all(is_dequantize(producer(operand(node, index))) for index in (0, 1))
        and _is_zero(operand(node, 2))
    )


def _harmed_by_others(product: ir.Node) -> ir.Node | None:
    """A reader that gets integers because there are others."""
    output = _scaled(product.outputs[0])
    found = readers(output)
    if len(found) + output.is_graph_output() < 2:
        return None
    if product.op_type == "MatMul":
        return next((node for node in found if node.op_type in ("Add", "Sub") and is_affine(node)), None)
    return next((node for node in found if node.op_type not in _HARMLESS), None)


def _moved_away(product: ir.Node) -> ir.Node | None:
    """The operator after which OpenVINO applies the scales of a convolution's channels to another axis."""
    if product.op_type == "MatMul":
        return None
    (value,) = product.outputs
    pooled = False
    while (node := only_reader(_scaled(value))) is not None:
        if node.op_type == "Transpose":
            moves = (attribute(node, "perm") or (0, 0))[1] != 1
            return node if pooled and moves else None
        if node.op_type == "Reshape":
            before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
            kept = before is not None and after is not None and before[1:2] == after[1:2]
            reader = None if kept else only_reader(node.outputs[0])
            return reader if reader is not None and reader.op_type in REDUCTIONS | {"Clip"} else None
        if node.op_type != "MaxPool":
            return None
        pooled = True
        (value,) = node.outputs
    return None


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
