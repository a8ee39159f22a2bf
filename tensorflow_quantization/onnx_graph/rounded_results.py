"""Operators on dequantized tensors whose results OpenVINO rounds to integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import data_of, is_affine
from tensorflow_quantization.onnx_graph.operators import CARRYING
from tensorflow_quantization.onnx_graph.queries import constant, is_dequantize, is_quantize, producer, readers

_OPPOSITE = {"Max": "Min", "Min": "Max"}


def rounded_results(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Operators whose results OpenVINO 2026.4 rounds, each with the DequantizeLinear that its input comes from.

    It computes them from the integers, and their results are integers: off by up to half a step. Measured, directly
    after the DequantizeLinear, or with operators between that move values, or multiply by constants or add some:

    - Limits: of a Clip, and of Max and Min with constants one after the other. Right if 0 is the only
      limit, as in Relu.
    - Averages of an AveragePool that something else than a quantizer reads. Right as an output of the graph.

    A Max with the lowest float before the operator keeps it in float; before a Min, a Min with the greatest float.

    Args:
        nodes: nodes of a graph.

    Yields:
        (Clip, the first of Max and Min, or AveragePool; DequantizeLinear).
    """
    for node in nodes:
        if (node.op_type == "Clip" and _limits(node)) or _is_limited_again(node) or _averages_for_others(node):
            source = producer(data_of(node))
            while source is not None and (is_affine(source) or source.op_type in CARRYING):
                source = producer(data_of(source))
            if source is not None and is_dequantize(source):
                yield node, source


def _averages_for_others(node: ir.Node) -> bool:
    """Whether something else than a quantizer reads an AveragePool."""
    return node.op_type == "AveragePool" and not all(map(is_quantize, readers(node.outputs[0])))


def _limits(clip: ir.Node) -> bool:
    """Whether a Clip has a limit that is not 0, which all integers of a scheme can be."""
    numbers = [constant(limit) for limit in clip.inputs[1:] if limit is not None]
    return any(number is None or number.any() for number in numbers)


def _is_limited_again(node: ir.Node) -> bool:
    """Whether a Max with a constant comes before a Min with one, or the other way."""
    opposite = _OPPOSITE.get(node.op_type)
    return (
        opposite is not None
        and _has_constant(node)
        and any(use.node.op_type == opposite and _has_constant(use.node) for use in node.outputs[0].uses())
    )


def _has_constant(node: ir.Node) -> bool:
    numbers = [number for number in map(constant, node.inputs) if number is not None]
    return any(number.size == 1 and abs(number) < np.finfo(np.float32).max for number in numbers)
