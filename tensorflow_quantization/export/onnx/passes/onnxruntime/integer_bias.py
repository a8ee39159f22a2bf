"""For ONNX Runtime: replace a MatMul with quantized weights and a float result by a Gemm with an integer bias.

    DQ ── MatMul(DQ) ── Add(bias)    →    DQ ── [Reshape] ── Gemm(DQ, DQ(bias in steps)) ── [Reshape]

With a float bias, ONNX Runtime returns to floats before it adds the bias; with an int32 bias in steps of input scale
times weight scale, it adds integers. The steps of 8-bit weights are so small that rounding to them is negligible.
Weights of few bits have large steps: their MatMul stays, unless Keras has rounded the bias to whole steps.

A Gemm has two axes. A product with more axes, such as a sequence of vectors, is reshaped before and after the Gemm, as
ONNX Runtime does if it knows all sizes.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_integer_bias, replace
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    chains,
    constant,
    is_private,
    layer_of,
    name_of,
    operand,
    producer,
    readers,
    shape_of,
)

logger = logging.getLogger(__name__)

#: Of the largest output: as much as verification allows.
_NEGLIGIBLE = 1e-4
#: Of 8-bit integers.
_HALF_RANGE = 128


def integer_bias(builder: Builder) -> int:
    """Replace MatMuls by Gemms, and return their number."""
    changed = 0
    for data, product, add in chains(builder.graph, "DequantizeLinear", "MatMul", "Add"):
        weight, bias = producer(operand(product, 1), "DequantizeLinear"), constant(operand(add, 1))
        if weight is None or bias is None or bias.ndim != 1:
            continue
        scale = _scale(data, weight)
        reason = _why_not(product, add) if scale is not None else "a scale or the weight is not constant, or has blocks"
        if scale is None or reason:
            logger.debug("%s stays a MatMul: %s", name_of(product), reason)
            continue
        step = np.broadcast_to(scale, bias.shape).astype(np.float32)
        integers = constant(operand(weight, 0))
        assert integers is not None  # else there is no scale
        steps = bias.astype(np.float64) / step
        if not (np.abs(steps).max() < 2**31 and _is_negligible(steps, integers)):
            logger.debug(
                "%s stays a MatMul: the steps of its bias are too large, or too small for int32", name_of(product)
            )
            continue
        _insert_gemm(builder, product, add, insert_integer_bias(builder, add, bias, step), len(bias))
        changed += 1
    return changed


def _is_negligible(steps: np.ndarray, integers: np.ndarray) -> bool:
    """Whether rounding a bias, in steps, is small beside the products of weights with inputs of half of their range."""
    largest = _HALF_RANGE * np.linalg.norm(integers.astype(np.float32), axis=0).max()
    return bool(np.abs(np.round(steps) - steps).max() <= _NEGLIGIBLE * largest)


def _scale(data: ir.Node, weight: ir.Node) -> np.ndarray | None:
    """Input scale times weight scale; `None` if a scale is not constant, or the weight is not a constant matrix.

    It is `None` for weights in blocks, too: there is no one step for the sum.
    """
    if attribute(weight, "block_size", 0):
        return None
    integers, scales = constant(operand(weight, 0)), [constant(operand(node, 1)) for node in (data, weight)]
    if integers is None or integers.ndim != 2 or scales[0] is None or scales[1] is None:
        return None
    return scales[0] * scales[1]


def _why_not(product: ir.Node, add: ir.Node) -> str | None:
    shape = shape_of(operand(product, 0))
    if not is_private(product.outputs[0]):
        return "not only the Add reads it"
    if shape is None or None in shape[1:-1]:
        return "the length of the sequence is not known"
    if len(shape) == 2 and any(reader.op_type == "QuantizeLinear" for reader in readers(add.outputs[0])):
        return "its sum is quantized, so it has an integer kernel as a MatMul"
    return None


def _insert_gemm(builder: Builder, product: ir.Node, add: ir.Node, bias: ir.Value, channels: int) -> None:
    """Replace the sum by the output of a Gemm; MatMul and Add become dead code."""
    path, shape = layer_of(product), shape_of(operand(product, 0))
    (data, weight), (total,) = product.inputs, add.outputs
    assert shape is not None

    def reshape(x: ir.Value, dims: list[int | None]) -> ir.Value:
        return builder.insert("Reshape", [x, np.asarray(dims, np.int64)], before=add, name=f"{path}/Reshape")

    if len(shape) > 2:
        data = reshape(data, [-1, shape[-1]])
    result = builder.insert("Gemm", [data, weight, bias], before=add, name=f"{path}/Gemm")
    if len(shape) > 2:
        result = reshape(result, [-1, *shape[1:-1], channels])
    result.shape, result.type = total.shape, total.type
    replace(total, result)
