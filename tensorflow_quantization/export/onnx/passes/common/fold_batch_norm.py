"""Fold a batch normalization, or factors and shifts per channel, into the convolution or matrix product before it.

    x ── Conv(W, b) ── BatchNormalization(f, s)    →    x ── Conv(f W, f b + s)
    x ── Conv(DQ(I, scale), b) ── Mul(f) ── Add(s)  →    x ── Conv(DQ(± I, |f| scale), f b + s)

A float weight is multiplied along its output channels. For a quantized weight, the scales are multiplied: the integers
stay, so the file computes exactly what fake quantization computed in training. A negative factor changes their signs.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Affine, read_affine
from tensorflow_quantization.export.onnx.passes._linear import Linear, find_linear, set_bias
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import attribute, constant, is_private, name_of, operand, producer

logger = logging.getLogger(__name__)

#: The least float32 number with full precision.
_TINY = float(np.finfo(np.float32).tiny)


def fold_batch_norm(builder: Builder) -> int:
    """Fold affine operators into the linear operators before them, and return the number of folded nodes."""
    folded = 0
    for node in list(builder.graph):
        linear = next(filter(None, map(find_linear, node.inputs[:2])), None)
        affine = read_affine(node, linear.channel_axis) if linear is not None else None
        if linear is None or affine is None:
            continue
        reason = _fold(builder, linear, affine)
        if reason:
            logger.debug("%s is not folded into %s: %s", name_of(node), name_of(linear.node), reason)
            continue
        builder.graph.remove(node, safe=True)
        folded += 1
    return folded


def _fold(builder: Builder, linear: Linear, affine: Affine) -> str | None:
    """Fold `affine` into `linear`, and return `None`; if that is impossible, change nothing and return the reason."""
    if not is_private(linear.output):
        return "something else reads the product"
    if not {affine.factor.size, affine.shift.size} <= {1, linear.channels}:
        return "it changes the number of channels"
    factor, shift = (np.broadcast_to(x, linear.channels) for x in (affine.factor, affine.shift))
    if (factor != 1).any() and not _scale_weight(builder, linear, factor):
        return "the integers or scales of the weight cannot hold the factors"
    result = linear.output
    if shift.any() or linear.bias is not None:
        bias = shift if linear.bias is None else linear.bias.astype(np.float64) * factor + shift
        result = set_bias(builder, linear, bias.astype(np.float32))
    replace(affine.output, result)
    return None


def _scale_weight(builder: Builder, linear: Linear, factor: np.ndarray) -> bool:
    """Multiply the weight by `factor` along its output channels; if impossible, change nothing, return `False`."""
    value = operand(linear.node, 1)
    assert value is not None
    if linear.is_float:
        shape = [1] * linear.weight.ndim
        shape[linear.axis] = -1
        scaled = (linear.weight * factor.reshape(shape)).astype(np.float32)
        linear.node.replace_input_with(1, builder.shared_initializer(f"{value.name}_folded", scaled))
        return True
    dequantize = producer(value, "DequantizeLinear")
    assert dequantize is not None
    return is_private(value) and _scale_scales(builder, dequantize, factor, linear.axis)


def _scale_scales(builder: Builder, dequantize: ir.Node, factor: np.ndarray, axis: int) -> bool:
    """Multiply the scales of a quantized weight by `factor`; if that is impossible, change nothing, return `False`."""
    values = [operand(dequantize, i) for i in range(3)]
    integers, scale, zero_point = (constant(v) for v in values)
    in_blocks = bool(attribute(dequantize, "block_size", 0))  # then there is no zero point
    if integers is None or scale is None or (zero_point is None and not in_blocks):
        return False
    if scale.ndim and not in_blocks and attribute(dequantize, "axis", 1) != axis:
        return False
    shape = [1] * integers.ndim
    shape[axis] = -1
    if not in_blocks:
        scale = np.broadcast_to(scale, factor.shape)
    zero_point = np.broadcast_to(0 if zero_point is None else zero_point, factor.shape)
    folded = scale.astype(np.float64) * np.abs(factor.reshape(shape) if in_blocks else factor)
    if not (folded < np.finfo(np.float32).max).all():
        return False
    # Scales have to be positive: where the factor is (almost) zero, the integers become zero and the scale stays.
    vanishes = folded < _TINY
    if in_blocks and vanishes.any():
        return False
    zeros = zero_point.astype(np.float32).reshape(shape)  # float32 holds each integer of 8 bits and number of FP8
    signs = np.sign(factor) if in_blocks else np.where(vanishes, 0, np.sign(factor))
    turned = zeros + signs.astype(np.float32).reshape(shape) * (integers.astype(np.float32) - zeros)
    if not np.array_equal(turned.astype(integers.dtype).astype(np.float32), turned):
        return False
    arrays = (
        turned.astype(integers.dtype),
        np.where(vanishes, scale, folded).astype(np.float32),
        zero_point,
    )
    for index, (old, new) in enumerate(zip(values, arrays, strict=True)):
        before = constant(old)
        if old is None or before is None or np.array_equal(before, new):
            continue
        dequantize.replace_input_with(index, builder.shared_initializer(f"{old.name}_folded", new))
    if not in_blocks:
        dequantize.attributes["axis"] = ir.AttrInt64("axis", axis)
    return True
