"""Limits of dequantized tensors, which OpenVINO rounds to integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import data_of, is_affine
from tensorflow_quantization.onnx_graph.queries import constant, is_dequantize, moves_only, producer

_OPPOSITE = {"Max": "Min", "Min": "Max"}


def rounded_limits(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Operators that limit dequantized tensors, each with the DequantizeLinear.

    OpenVINO 2026.4 applies the limits to the integers, and rounds them to integers: the result is off by up to half a
    step. Measured: Clip, and Max and Min with constants one after the other; directly after the DequantizeLinear, or
    with operators between that move values, or multiply by constants or add some. It is right if 0 is the only limit,
    as in Relu, and if a Max with the lowest float comes before; before a Min, a Min with the greatest float.

    Args:
        nodes: nodes of a graph.

    Yields:
        (Clip, or the first of Max and Min; DequantizeLinear).
    """
    for node in nodes:
        if (node.op_type == "Clip" and _limits(node)) or _is_limited_again(node):
            source = producer(data_of(node))
            while source is not None and (is_affine(source) or moves_only(source)):
                source = producer(data_of(source))
            if source is not None and is_dequantize(source):
                yield node, source


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
