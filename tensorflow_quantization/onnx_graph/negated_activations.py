"""Where OpenVINO would apply a negative factor before an activation that comes before it in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.lost_scales import is_unbiased_product
from tensorflow_quantization.onnx_graph.operators import MOVING
from tensorflow_quantization.onnx_graph.queries import constant, operand, producer, readers

#: f(c x) = c f(x), but for positive c only.
_POSITIVELY_HOMOGENEOUS = frozenset({"LeakyRelu", "PRelu", "Relu"})
#: What OpenVINO moves a factor over, on its way to the activation.
_CROSSED = frozenset({"AveragePool", "GlobalAveragePool", "Pad", "ReduceMean", "Split", "Transpose"})


def negated_activations(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Activations of a quantized convolution, each with the first operator that multiplies it by a negative constant.

    OpenVINO 2026.4 fuses the factor with the scales of the convolution, as if it commuted with the activation: of
    relu(x) * -1, it computes relu(-x). Measured: Relu, LeakyRelu and PRelu of convolutions without a bias or with
    one of zeros, also depthwise and transposed ones, and the operators in `_CROSSED` between if a quantizer follows.
    Right are matrix products, convolutions in float or with a bias, other activations, and a constant that is added
    directly after the factor. A Max with the lowest float after the activation keeps them apart.

    Args:
        nodes: nodes of a graph.

    Yields:
        (activation; Neg, Mul or Div with a negative constant, or the Sub that subtracts it).
    """
    for node in nodes:
        if node.op_type in _POSITIVELY_HOMOGENEOUS and _is_convolved(operand(node, 0)):
            negating = next(_negating(node.outputs[0]), None)
            if negating is not None:
                yield node, negating


def _is_convolved(value: ir.Value | None) -> bool:
    """Whether a value is what a convolution of integers without a bias computes, perhaps with constants."""
    node = producer(value)
    while node is not None and is_affine(node):
        node = producer(data_of(node))
    return node is not None and node.op_type != "MatMul" and is_unbiased_product(node)


def _negating(value: ir.Value, crossed: frozenset[str] = frozenset()) -> Iterator[ir.Node]:
    """The operators that multiply a value by a negative constant; `crossed`: those between the activation and it."""
    for node in readers(value):
        if _has_negative_factor(node, value, crossed):
            if not _is_shifted(node.outputs[0]):
                yield node
        elif (
            node.op_type in _CROSSED or (is_affine(node) and data_of(node) is value) or _reshapes_average(node, crossed)
        ):
            for output in node.outputs:
                yield from _negating(output, crossed | {node.op_type})


def _reshapes_average(node: ir.Node, crossed: frozenset[str]) -> bool:
    """Whether a node gives another shape to an average of all points."""
    return node.op_type in MOVING and "GlobalAveragePool" in crossed


def _has_negative_factor(node: ir.Node, value: ir.Value, crossed: frozenset[str]) -> bool:
    if node.op_type == "Neg":
        return True
    if node.op_type == "Sub":  # right where constants are added before, and of a constant less the value
        return operand(node, 1) is value and constant(operand(node, 0)) is None and not crossed & {"Add", "Sub"}
    factor = constant_of(node) if node.op_type in ("Div", "Mul") else None
    return factor is not None and bool((factor < 0).any())


def _is_shifted(value: ir.Value) -> bool:
    """Whether all readers of a value add constants to it."""
    found = readers(value)
    return bool(found) and all(
        node.op_type == "BatchNormalization" or (node.op_type in ("Add", "Sub") and is_affine(node)) for node in found
    )
