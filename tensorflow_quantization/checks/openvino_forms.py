"""Predicates about forms that only OpenVINO treats apart. Each yields `Violation`s."""

from __future__ import annotations

from collections.abc import Iterator

from tensorflow_quantization.checks.qdq_graph import QdqGraph, Quantization, attribute
from tensorflow_quantization.checks.rule import Violation


def asymmetric_products(graph: QdqGraph) -> Iterator[Violation]:
    """MatMuls of two activations, of which the left has a zero point, or the right is not symmetric around its own."""
    for weighted in graph.weighted:
        left, right = weighted.data, weighted.weight
        if left.is_weight or right.is_weight or left.dequantize is None or right.dequantize is None:
            continue
        a, b = Quantization.of(left.dequantize), Quantization.of(right.dequantize)
        if a.zero != 0:
            yield Violation((weighted.node, left.dequantize), f"its left input is {a.dtype} with zero point {a.zero}")
        elif (b.dtype, b.zero) not in (("int8", 0), ("uint8", 128)):
            yield Violation((weighted.node, right.dequantize), f"its right input is {b.dtype} with zero point {b.zero}")


def grouped_transposed(graph: QdqGraph) -> Iterator[Violation]:
    """Quantized ConvTransposes with more than one group."""
    for weighted in graph.weighted:
        groups = attribute(weighted.node, "group", 1)
        if weighted.node.op_type == "ConvTranspose" and weighted.quantized and groups > 1:
            yield Violation((weighted.node,), f"it has {groups} groups")
