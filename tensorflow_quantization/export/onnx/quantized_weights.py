"""Writes a quantized weight: its integers or numbers of FP8 as a constant, and a DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.quantizers import WeightQuantizer

if TYPE_CHECKING:
    from tensorflow_quantization.export.onnx.emission import Emission

#: The first opset with blocks and INT4.
_BLOCKS_OPSET = 21


def write_weight(
    e: Emission,
    quantizer: WeightQuantizer,
    array: np.ndarray,
    transform: Callable[[np.ndarray], np.ndarray],
    axis: int | None,
    name: str,
) -> ir.Value:
    """Append a quantized weight, and return its dequantized value.

    Args:
        e: the emission of the layer.
        quantizer: the quantizer of the weight.
        array: the float32 weight in Keras' axis order.
        transform: converts an array from Keras' axis order to the order of the ONNX operator.
        axis: the axis of the output channels in the transformed weight; `None`: there is one scale.
        name: the name of the constant within the layer.

    Raises:
        NotExpressibleError: the scales vary along an axis other than `axis`, or within blocks of rows.
        OpsetError: blocks need a newer opset than the user set.
    """
    e.builder.require_dtype(quantizer.scheme.dtype)
    integers, prefix = transform(quantizer.integers(array)), f"{e.path}/{name}"
    parameters = quantizer.parameters(array)
    scale, zero_point = (transform(np.broadcast_to(p, array.shape)) for p in parameters)
    size = quantizer.scheme.block_size
    if size is not None:
        # All runtimes read 0 without a zero point, and OpenVINO computes more with one.
        packed = integers.astype(ir.DataType.INT4.numpy()) if quantizer.scheme.bits == 4 else integers
        constants = [
            e.builder.shared_initializer(prefix, packed),
            e.builder.initializer(f"{prefix}_scale", _per_block(scale, size, name)),
        ]
        node = f"{name}/DequantizeLinear"
        return e.op("DequantizeLinear", *constants, since=_BLOCKS_OPSET, name=node, axis=0, block_size=size)
    varies = parameters[0].size > 1
    scale, zero_point = (_per_channel(p, varies, axis, name) for p in (scale, zero_point))
    constants = [
        e.builder.shared_initializer(prefix, integers),
        e.builder.initializer(f"{prefix}_scale", scale),
        e.builder.initializer(f"{prefix}_zero_point", zero_point),
    ]
    # A per-tensor scale has no axis. Leave the attribute out: checkers reject its default, 1, for a scalar.
    return e.op("DequantizeLinear", *constants, name=f"{name}/DequantizeLinear", axis=axis if scale.ndim else None)


def _per_block(array: np.ndarray, size: int, name: str) -> np.ndarray:
    """Scales of the shape of a matrix (inputs, channels), reduced to one row per block of inputs."""
    rows = array[::size]
    if not np.array_equal(np.repeat(rows, size, axis=0)[: len(array)], array):
        raise NotExpressibleError(f"has scales for {name} that vary within the blocks of {size} inputs of its matrix")
    return rows


def _per_channel(array: np.ndarray, varies: bool, axis: int | None, name: str) -> np.ndarray:
    """Scales or zero points of the shape of a weight, reduced to one number per channel or per tensor."""
    if not varies:
        return array.ravel()[0]
    if axis is None:
        raise NotExpressibleError(f"has per-channel scales for {name}, which here needs one scale")
    by_channel = np.moveaxis(array, axis, 0)
    vector = by_channel[(slice(None),) + (0,) * (array.ndim - 1)]
    if not np.array_equal(by_channel, np.broadcast_to(vector.reshape(-1, *[1] * (array.ndim - 1)), by_channel.shape)):
        raise NotExpressibleError(f"has scales for {name} that vary along an axis other than the output channels")
    return vector
