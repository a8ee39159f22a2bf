"""Folds a batch normalization into the convolution or matrix product before it; likewise factors and sums of channels.

For a float weight it scales the output channels. For a quantized one it scales the scales: the integers stay, so what
training learned with fake-quantization is computed exactly; only a negative factor turns their signs.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import read_affine
from tensorflow_quantization.export.onnx.passes._graph import array, integer, is_private, operand, producer, replace
from tensorflow_quantization.export.onnx.passes._linear import Linear, find_linear, set_bias

#: The least scale that float32 holds with full precision.
_TINY = float(np.finfo(np.float32).tiny)


def fold_batch_norm(builder: Builder) -> None:
    for node in list(builder.graph):
        linear = next(filter(None, map(_find_private, node.inputs[:2])), None)
        affine = read_affine(node, linear.channel_axis) if linear is not None else None
        if linear is None or affine is None or not {affine.factor.size, affine.shift.size} <= {1, linear.channels}:
            continue
        factor, shift = (np.broadcast_to(x, linear.channels) for x in (affine.factor, affine.shift))
        if (factor != 1).any() and not _scale_weight(builder, linear, factor):
            continue
        result = linear.output
        if shift.any() or linear.bias is not None:
            bias = shift if linear.bias is None else linear.bias.astype(np.float64) * factor + shift
            result = set_bias(builder, linear, bias.astype(np.float32))
        replace(affine.output, result)
        builder.graph.remove(node, safe=True)


def _find_private(value: ir.Value | None) -> Linear | None:
    """The operator that computes `value`, if nothing else reads that."""
    return find_linear(value) if value is not None and is_private(value) else None


def _scale_weight(builder: Builder, linear: Linear, factor: np.ndarray) -> bool:
    """Multiply the weight by `factor` along its output channels; `False`, and nothing done, if that is not possible."""
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
    values = [operand(dequantize, i) for i in range(3)]
    integers, scale, zero_point = (array(v) for v in values)
    if integers is None or scale is None or zero_point is None:
        return False
    if scale.ndim and integer(dequantize, "axis", 1) != axis:
        return False
    shape = [1] * integers.ndim
    shape[axis] = -1
    scale = np.broadcast_to(scale, factor.shape)
    zero_point = np.broadcast_to(zero_point, factor.shape)
    folded = scale.astype(np.float64) * np.abs(factor)
    if not (folded < np.finfo(np.float32).max).all():
        return False
    # A channel that is multiplied by (almost) nothing has zeros for integers: scales have to be positive.
    vanishes = folded < _TINY
    zeros = zero_point.astype(np.int32).reshape(shape)
    signs = np.where(vanishes, 0, np.sign(factor)).astype(np.int32).reshape(shape)
    turned = zeros + signs * (integers.astype(np.int32) - zeros)
    limits = np.iinfo(integers.dtype)
    if turned.min() < limits.min or turned.max() > limits.max:
        return False
    arrays = (
        turned.astype(integers.dtype),
        np.where(vanishes, scale, folded).astype(np.float32),
        zero_point,
    )
    for index, (old, new) in enumerate(zip(values, arrays, strict=True)):
        before = array(old)
        if old is None or before is None or np.array_equal(before, new):
            continue
        dequantize.replace_input_with(index, builder.shared_initializer(f"{old.name}_folded", new))
    dequantize.attributes["axis"] = ir.AttrInt64("axis", axis)
    return True
