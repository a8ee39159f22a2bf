"""Merge consecutive Reshapes, and remove a Reshape to the shape that its input already has.

    x ── Reshape ── Reshape             →    x ── Reshape
    x ── Reshape ── Q ── DQ ── Reshape  →    x ── Q ── DQ ── Reshape

A per-tensor quantizer does not depend on the shape. So in squeeze-and-excitation, which pools, flattens and unflattens,
no Reshape is left between the pooling and the quantizer.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import (
    chain_to,
    constant,
    name_of,
    only_reader,
    operand,
    producer,
    readers,
)

logger = logging.getLogger(__name__)


def merge_reshapes(builder: Builder) -> int:
    """Merge, move or remove Reshapes, and return the number of changes."""
    changed = 0
    for node in list(builder.graph):
        if found := chain_to(node, "Reshape", "QuantizeLinear"):
            changed += _skip_before_quantizer(*found)
        if node.op_type == "Reshape":
            changed += _join(node)
            changed += _remove(node)
    return changed


def _join(node: ir.Node) -> bool:
    previous = producer(operand(node, 0), "Reshape")
    if previous is None:
        return False
    if not _keeps_meaning(_dims(previous), _dims(node)):
        logger.debug("%s stays after %s: its zeros would copy other axes", name_of(node), name_of(previous))
        return False
    node.replace_input_with(0, operand(previous, 0))
    return True


def _remove(node: ir.Node) -> bool:
    source = operand(node, 0)
    if source is None or not _is_shape_of(_dims(node), source.shape):
        return False
    replace(node.outputs[0], source)
    return True


def _skip_before_quantizer(reshape: ir.Node, quantize: ir.Node) -> bool:
    """Quantize the input of a Reshape, not its output, if only Reshapes read the dequantized output."""
    integers, source = quantize.outputs[0], operand(reshape, 0)
    dequantize = only_reader(integers, "DequantizeLinear")
    if dequantize is None or source is None:
        return False
    (floats,) = dequantize.outputs
    following = readers(floats)
    if floats.is_graph_output() or not following or any(reader.op_type != "Reshape" for reader in following):
        return False
    if not all(_keeps_meaning(_dims(reshape), _dims(reader)) for reader in following):
        reason = "the zeros of a later Reshape would copy other axes"
        logger.debug("%s stays before %s: %s", name_of(reshape), name_of(quantize), reason)
        return False
    quantize.replace_input_with(0, source)
    integers.shape = None
    floats.shape, floats.type = source.shape, source.type
    return True


def _dims(node: ir.Node) -> list[int]:
    dims = constant(operand(node, 1))
    return [] if dims is None else dims.tolist()


def _keeps_meaning(first: list[int], second: list[int]) -> bool:
    """Whether the dims `second` return the same shape for the input of `first`; a 0 copies an axis of the input."""
    if not first or not second or 0 in second[1:]:
        return False
    return second[0] != 0 or first[0] == 0


def _is_shape_of(dims: list[int], shape: ir.Shape | None) -> bool:
    if shape is None or not dims or len(shape) != len(dims):
        return False
    return dims[0] in (0, shape[0]) and all(d == known for d, known in zip(dims[1:], list(shape)[1:], strict=True))
