"""Repeat a Q/DQ pair after operators that only move integers, and before a Concat.

    q ── DQ ── MaxPool ── Conv        →    q ── DQ ── MaxPool ── Q ── DQ ── Conv

    a ─┐                                   a ── Q ── DQ ─┐
    b ─┴ Concat ── Q ── DQ            →    b ── Q ── DQ ─┴ Concat ── Q ── DQ

A runtime runs an operator in integers if it lies between DequantizeLinear and QuantizeLinear. The repeated pairs change
nothing: a MaxPool or Reshape of dequantized integers returns values of the same integers, and quantizing the output of
a Concat is the same as quantizing its inputs. For ONNX Runtime, an input of a Concat that is dequantized keeps its
scale: the runtime joins integers of several scales, and of two pairs in a row it would make one with another scale.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import SHARED
from tensorflow_quantization.export.onnx.passes._rewriting import insert_pair
from tensorflow_quantization.onnx_graph.operators import SELECTING
from tensorflow_quantization.onnx_graph.quantization import same_parameters
from tensorflow_quantization.onnx_graph.queries import constant, moves_only, name_of, operand, producer, readers

logger = logging.getLogger(__name__)

#: Operators for which runtimes have an integer kernel.
_COMPUTING = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool"}
    | {"MatMul", "Mul"}
)


def repeat_quantizers(builder: Builder) -> int:
    """Repeat Q/DQ pairs, and return the number of inserted pairs."""
    inserted = 0
    for node in list(builder.graph):
        for output in node.outputs if node.op_type in SELECTING else ():
            inserted += _repeat_after(builder, node, output)
    for node in reversed(list(builder.graph)):
        if node.op_type == "Concat":
            inserted += _repeat_before(builder, node)
    return inserted


def _repeat_after(builder: Builder, node: ir.Node, output: ir.Value) -> bool:
    dequantize, following = producer(operand(node, 0), "DequantizeLinear"), readers(output)
    if dequantize is None or constant(operand(dequantize, 0)) is not None:
        return False
    if not any(reader.op_type in _COMPUTING | SELECTING for reader in following):
        return False
    reason = _why_not(node, output)
    if reason:
        logger.debug("no quantizer after %s: %s", name_of(node), reason)
        return False
    _, floats = insert_pair(builder, output, dequantize.inputs[1:], after=node)
    for reader in following:
        for index, value in enumerate(reader.inputs):
            if value is output:
                reader.replace_input_with(index, floats)
    return True


def _why_not(node: ir.Node, output: ir.Value) -> str | None:
    if not moves_only(node):
        return "it does not pad with zero"
    if output.is_graph_output():
        return "its output is an output of the graph"
    quantized = any(reader.op_type == "QuantizeLinear" for reader in readers(output))
    return "its output is quantized already" if quantized else None


def _repeat_before(builder: Builder, node: ir.Node) -> int:
    following = readers(node.outputs[0])
    if len(following) != 1 or following[0].op_type != "QuantizeLinear":
        return 0
    (quantize,) = following
    if not quantize.outputs[0].meta.get(SHARED):
        logger.debug("no quantizers before %s: %s is for one reader only", name_of(node), name_of(quantize))
        return 0
    any_scale = builder.target == "onnxruntime"
    inserted = 0
    for index, value in enumerate(node.inputs):
        dequantize = producer(value, "DequantizeLinear")
        if value is None or (dequantize is not None and (any_scale or same_parameters(dequantize, quantize))):
            continue
        integers, floats = insert_pair(builder, value, quantize.inputs[1:], before=node)
        integers.meta[SHARED] = True
        node.replace_input_with(index, floats)
        inserted += 1
    return inserted
