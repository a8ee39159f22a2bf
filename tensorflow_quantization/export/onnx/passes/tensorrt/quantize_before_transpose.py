"""For TensorRT: quantize the input of the model before it is transposed.

    input ── Transpose ── Q ── DQ    →    input ── Q ── DQ ── Transpose

The input may be scaled by constants before. The values are the same. TensorRT transposes and rounds in one kernel
then; otherwise another kernel transposes the integers: a network of two convolutions for images of 32x32 has 7 kernels
instead of 8.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import TRANSPOSED_LATER
from tensorflow_quantization.export.onnx.passes._rewriting import quantize_before
from tensorflow_quantization.onnx_graph.affine import ARITHMETIC, constant_of, data_of
from tensorflow_quantization.onnx_graph.queries import attribute, chains, is_private, only_reader, operand, producer


def quantize_before_transpose(builder: Builder) -> int:
    """Move quantizers before Transposes of model inputs, and return their number."""
    changed = 0
    for transpose, quantize in chains(builder.graph, "Transpose", "QuantizeLinear"):
        dequantize = only_reader(quantize.outputs[0], "DequantizeLinear")
        if not _is_input(operand(transpose, 0)) or dequantize is None or not is_private(transpose.outputs[0]):
            continue
        quantize_before(builder.graph, transpose, quantize, dequantize)
        quantize.outputs[0].meta[TRANSPOSED_LATER] = attribute(transpose, "perm")
        changed += 1
    return changed


def _is_input(value: ir.Value | None) -> bool:
    """Whether a value is an input of the model, or one that is scaled."""
    while (node := producer(value)) is not None and node.op_type in ARITHMETIC and constant_of(node) is not None:
        value = data_of(node)
    return producer(value) is None
