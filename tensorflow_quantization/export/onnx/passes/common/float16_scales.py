"""Give integer weights scales that float16 has.

    DequantizeLinear(I, 2e-11)    →    DequantizeLinear(J, 6e-8),  J = round(I * 2e-11 / 6e-8)

Trained networks have channels that are almost zero, whose scale would become zero, or lose a third of its value: below
6e-5, float16 numbers are 6e-8 apart. The scale becomes the next float16 number, and the integers are rounded anew: no
weight moves by more than half of this scale.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import attribute, constant, operand

#: Below the least normal number, float16 has fewer digits.
_NORMAL = np.float32(np.finfo(np.float16).smallest_normal)


def float16_scales(builder: Builder) -> int:
    """Raise the small scales of integer weights to float16 numbers, and return the number of changed weights."""
    return sum(_raise(builder, node) for node in builder.graph if node.op_type == "DequantizeLinear")


def _raise(builder: Builder, node: ir.Node) -> bool:
    integers, scale, zero_point = (constant(operand(node, index)) for index in range(3))
    if integers is None or scale is None or integers.dtype == np.int32:  # biases keep float32 scales
        return False
    small = scale < _NORMAL
    if not small.any():
        return False
    raised = np.where(small, _next_half(scale), scale)
    ratio = _spread(node, scale.astype(np.float64) / raised, integers.shape)
    zeros = 0 if zero_point is None else _spread(node, zero_point.astype(np.float64), integers.shape)
    again = (integers.astype(np.float64) - zeros) * ratio + zeros
    is_float8 = "float" in integers.dtype.name
    again = (again if is_float8 else np.round(again)).astype(integers.dtype)
    for index, array in ((0, again), (1, raised.astype(np.float32))):
        old = node.inputs[index]
        assert old is not None
        node.replace_input_with(index, builder.shared_initializer(f"{old.name}_float16", array))
    return True


def _next_half(scale: np.ndarray) -> np.ndarray:
    """The least float16 numbers that are not smaller."""
    half = scale.astype(np.float16)
    return np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)


def _spread(node: ir.Node, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the shape of the scale, so that it can be multiplied by integers of a shape."""
    if not array.ndim:
        return array
    axis = attribute(node, "axis", 1) % len(shape)
    if block := attribute(node, "block_size", 0):
        return np.repeat(array, block, axis).take(range(shape[axis]), axis)
    return array.reshape([-1 if i == axis else 1 for i in range(len(shape))])
