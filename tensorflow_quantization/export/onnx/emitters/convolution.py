"""Convolutions: plain, depthwise, separable and transposed, in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._windows import (
    repeated,
    transposed_attributes,
    unless_ones,
    window_attributes,
)
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Order, Value


def kernel_to_onnx(kernel: np.ndarray) -> np.ndarray:
    """(space..., in, out) to (out, in, space...)."""
    return kernel.transpose(kernel_order(kernel.ndim))


def kernel_order(rank: int) -> Order:
    """The order in which `kernel_to_onnx` stores the axes of a kernel with `rank` axes."""
    return (rank - 1, rank - 2, *range(rank - 2))


def depthwise_kernel_to_onnx(kernel: np.ndarray) -> np.ndarray:
    """(space..., in, multiplier) to (in * multiplier, 1, space...): output channels are ordered by input channel."""
    rank = kernel.ndim - 2
    kernel = kernel.transpose(rank, rank + 1, *range(rank))
    return kernel.reshape(-1, 1, *kernel.shape[2:])


def convolve(
    e: Emission,
    layer,
    x: Value,
    weight: Any,
    bias: ir.Value | None,
    kernel: Sequence[int],
    groups: int = 1,
) -> ir.Value:
    """A Conv with the strides, dilations and padding of `layer`, which may be an operation of `keras.ops`."""
    rank = len(kernel)
    strides, dilations = repeated(layer.strides, rank), repeated(layer.dilation_rate, rank)
    return e.op(
        "Conv",
        x,
        weight,
        bias,
        kernel_shape=list(kernel),
        strides=unless_ones(strides),
        dilations=unless_ones(dilations),
        group=groups if groups > 1 else None,
        **window_attributes(layer.padding, x.stored_shape[2:], kernel, strides, dilations),
    )


@emitter("Conv1D", "Conv2D", "Conv3D", layout="channels_first")
def convolution(e: Emission, layer, x: Value) -> Value:
    weight = e.weight("kernel", kernel_to_onnx, axis=0)
    y = convolve(e, layer, x, weight, e.weight("bias"), layer.kernel_size, layer.groups)
    return e.activate(e.output(y, x))


@emitter("DepthwiseConv1D", "DepthwiseConv2D", layout="channels_first")
def depthwise(e: Emission, layer, x: Value) -> Value:
    weight = e.weight("kernel", depthwise_kernel_to_onnx, axis=0)
    y = convolve(e, layer, x, weight, e.weight("bias"), layer.kernel_size, channels_of(x))
    return e.activate(e.output(y, x))


@emitter("SeparableConv1D", "SeparableConv2D", layout="channels_first")
def separable(e: Emission, layer, x: Value) -> Value:
    return pointwise_half(e, layer, depthwise_half(e, layer, x))


def depthwise_half(e: Emission, layer, x: Value) -> Value:
    """The depthwise convolution of a separable convolution."""
    weight = e.weight("depthwise_kernel", depthwise_kernel_to_onnx, axis=0)
    y = convolve(e, layer, x, weight, None, layer.kernel_size, channels_of(x))
    shape = list(e.outputs[0].shape)
    shape[x.order[1]] = channels_of(x) * layer.depth_multiplier
    return Value(y, tuple(shape), x.dtype, x.order)


def pointwise_half(e: Emission, layer, x: Value) -> Value:
    """The pointwise convolution, bias and activation of a separable convolution."""
    weight = e.weight("pointwise_kernel", kernel_to_onnx, axis=0)
    y = e.op("Conv", x, weight, e.weight("bias"), kernel_shape=[1] * len(layer.kernel_size))
    return e.activate(e.output(y, x))


@emitter("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", layout="channels_first")
def transposed(e: Emission, layer, x: Value) -> Value:
    weight = e.weight("kernel", kernel_to_onnx, axis=1)  # Keras' (space..., out, in) becomes (in, out, space...)
    return e.activate(e.output(transpose_convolve(e, layer, x, weight, e.weight("bias"), layer.kernel_size), x))


def transpose_convolve(
    e: Emission, layer, x: Value, weight: Any, bias: ir.Value | None, kernel: Sequence[int]
) -> ir.Value:
    """A ConvTranspose with the strides, dilations and padding of `layer`, which may be an operation of `keras.ops`."""
    rank = len(kernel)
    strides, dilations = repeated(layer.strides, rank), repeated(layer.dilation_rate, rank)
    more = None if layer.output_padding is None else repeated(layer.output_padding, rank)
    return e.op(
        "ConvTranspose",
        x,
        weight,
        bias,
        kernel_shape=list(kernel),
        strides=unless_ones(strides),
        dilations=unless_ones(dilations),
        **transposed_attributes(layer.padding, kernel, strides, dilations, more),
    )


def channels_of(x: Value) -> int:
    """The number of channels of a value that is stored channels first."""
    channels = x.stored_shape[1]
    assert channels is not None  # Keras builds a convolution only if the number of channels is known
    return channels
