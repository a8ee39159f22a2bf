"""Where a network can be rescaled channel by channel without changing its function.

A source computes y and can divide each channel of y by a factor: a product, a BatchNormalization or a
LayerNormalization. Readers multiply y by their kernels and can multiply by the factors instead. All calls between the
two keep factors of channels: ReLU and pooling do, ReLU6 and swish do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.model.activations import Activation, activation_of, is_relu, own_activation
from tensorflow_quantization.model.equation import Equation
from tensorflow_quantization.model.fusion import channel_axis
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.keras_internals import projection
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.model.weights import float32_array, merged_weights
from tensorflow_quantization.wrappers.channels import output_channel_axis

#: Activations f with f(c * x) = c * f(x) for each c > 0.
_HOMOGENEOUS = {Activation.LINEAR, Activation.RELU, Activation.LEAKY_RELU, Activation.PRELU}


@dataclass(frozen=True)
class Rescaling:
    """A tensor whose channels can have any positive factors.

    Attributes:
        source: the call that can divide its output by the factors.
        tensor: what the readers read.
        axis: int, the channel axis of `tensor`.
        index: for each channel of `tensor`, the channel of `source`; a Flatten repeats channels.
        between: the calls from `source` to `tensor`.
        readers: the calls that can multiply by the factors.
    """

    source: Call
    tensor: Tensor
    axis: int
    index: np.ndarray
    between: list[Call]
    readers: list[Call]


def rescalings(graph: LayerGraph) -> Iterator[Rescaling]:
    """Yields each place of a flattened graph where channels can be rescaled, from the inputs on."""

    def is_once(call: Call) -> bool:
        return graph.is_only_call(call) and not (call.is_layer and merged_weights(call.operation))

    for call in graph.calls:
        axis = _source_axis(call)
        if axis is not None and is_once(call) and call.outputs[0].shape[axis] is not None:
            found = _follow(graph, call, axis)
            if found is not None and all(map(is_once, found.readers)):
                yield found


def inner_products(graph: LayerGraph) -> Iterator[Call]:
    """Yields the separable convolutions that are called once: between their products, channels can have factors."""
    for call in graph.calls:
        if Trait.HAS_INNER_PRODUCT in traits(call) and graph.is_only_call(call):
            yield call


def inner_tensor(call: Call, x: Any) -> Any:
    """Returns what the depthwise product of a separable convolution makes of its input."""
    layer = call.operation
    settings = (layer.strides, layer.padding, layer.data_format, layer.dilation_rate)
    return ops.depthwise_conv(x, ops.cast(layer.depthwise_kernel, x.dtype), *settings)


def rescale_inside(call: Call, factors: np.ndarray) -> None:
    """Divides the channels between the two products of a separable convolution by factors; its output stays."""
    layer = call.operation
    depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
    depthwise.assign(float32_array(depthwise) / factors.reshape(depthwise.shape[-2:]))
    multiply_reader(pointwise, -2, 1, factors)


def _source_axis(call: Call) -> int | None:
    """Returns the channel axis of the output of a source; `None` for any other call."""
    layer, kind = call.operation, traits(call)
    if len(call.outputs) != 1:
        return None
    rank = len(call.outputs[0].shape)
    if Trait.NORMALIZES in kind:
        return layer.axis % rank if layer.scale and layer.center else None
    if "LayerNormalization" in call.class_names and not getattr(layer, "rms_scaling", False):
        axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
        return axes[0] % rank if len(axes) == 1 and layer.scale and layer.center else None
    if Trait.MULTIPLIES_BY_WEIGHTS in kind and Trait.ATTENDS not in kind and hasattr(layer, "kernel"):
        return channel_axis(call) if own_activation(layer) in _HOMOGENEOUS else None
    return None


def _follow(graph: LayerGraph, source: Call, axis: int) -> Rescaling | None:
    tensor = source.outputs[0]
    channels = tensor.shape[axis]
    assert channels is not None  # else the call is no source
    index = np.arange(channels)
    between: list[Call] = []
    while True:
        readers = graph.consumers(tensor)
        if graph.is_output(tensor) or not readers:
            return None
        if all(_can_multiply(call, tensor, axis) for call in readers):
            return Rescaling(source, tensor, axis, index, between, readers)
        if len(readers) != 1:
            return None
        (call,) = readers
        if "Flatten" in call.class_names:
            sizes = [size for size in tensor.shape[1:] if size is not None]
            if len(sizes) < len(tensor.shape) - 1 or getattr(call.operation, "data_format", None) == "channels_first":
                return None
            shape = [1] * len(sizes)
            shape[axis - 1] = len(index)
            index = np.broadcast_to(index.reshape(shape), sizes).ravel()
            axis = 1
        elif _keeps_factors(call) and call.inputs == [tensor]:
            same_rank = len(call.outputs[0].shape) == len(tensor.shape)
            axis = axis if same_rank else 1  # a global pooling leaves (batch, channels)
        else:
            return None
        between.append(call)
        tensor = call.outputs[0]


def _keeps_factors(call: Call) -> bool:
    if Trait.KEEPS_CHANNEL_FACTORS in traits(call):
        return True
    layer: Any = call.operation
    if is_relu(layer):
        return layer.max_value is None and not layer.threshold
    return activation_of(layer) in _HOMOGENEOUS


def _can_multiply(call: Call, tensor: Tensor, axis: int) -> bool:
    """Returns whether a call only multiplies `tensor` by kernels, along its channels."""
    layer, kind = call.operation, traits(call)
    if Trait.MULTIPLIES_BY_WEIGHTS not in kind or any(x is not tensor for x in call.inputs):
        return False
    rank = len(tensor.shape)
    if Trait.PROJECTS in kind:
        return axis == rank - 1 and "MultiHeadAttention" in call.class_names
    if isinstance(layer, keras.layers.EinsumDense):
        return axis == rank - 1 and _einsum_axis(layer, rank) is not None
    wanted = 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else rank - 1
    return axis == wanted


def _einsum_axis(layer: keras.layers.EinsumDense, rank: int) -> int | None:
    """Returns the axis of the kernel that meets the last axis of the input."""
    equation = Equation.parse(layer.equation, rank)
    last = equation.inputs[-1]
    return equation.kernel.index(last) if equation.is_product and last in equation.summed else None


def reading_kernels(call: Call, tensor: Tensor) -> list[tuple[keras.Variable, int]]:
    """Returns the kernels that multiply `tensor` in a reader, each with the axis of its input channels."""
    layer = call.operation
    if Trait.PROJECTS in traits(call):
        projections = [projection(layer, name) for name in ("query", "key", "value")]
        return [(dense.kernel, 0) for dense in projections if dense is not None]
    if isinstance(layer, keras.layers.EinsumDense):
        axis = _einsum_axis(layer, len(tensor.shape))
        assert axis is not None  # else the call is no reader
        return [(layer.kernel, axis)]
    if Trait.HAS_INNER_PRODUCT in traits(call):
        return [(layer.depthwise_kernel, -2)]
    transposed = output_channel_axis(layer, "kernel") == (-2,)
    return [(layer.kernel, -1 if transposed else -2)]


def divide_source(call: Call, factors: np.ndarray) -> None:
    """Divides the outputs of a source, before its activation, by the factor of each channel."""
    layer = call.operation
    if Trait.MULTIPLIES_BY_WEIGHTS not in traits(call):
        for variable in (layer.gamma, layer.beta):
            variable.assign(float32_array(variable) / factors.reshape(variable.shape))
        return
    kernel = float32_array(layer.kernel)
    axes = [axis % kernel.ndim for axis in output_channel_axis(layer, "kernel")]
    divisor = factors.reshape([size if axis in axes else 1 for axis, size in enumerate(kernel.shape)])
    layer.kernel.assign(kernel / divisor)
    if layer.bias is not None:
        layer.bias.assign(float32_array(layer.bias) / factors.reshape(layer.bias.shape))


def multiply_reader(kernel: keras.Variable, axis: int, groups: int, factors: np.ndarray) -> None:
    """Multiplies a kernel by the factors of its input channels.

    Args:
        kernel: the kernel; changed in place.
        axis: the axis of its input channels, within one group.
        groups: int, of a convolution; 1 for any other.
        factors: a factor for each channel of the input.
    """
    kernel.assign(float32_array(kernel) * kernel_factors(tuple(kernel.shape), axis, groups, factors))


def kernel_factors(shape: tuple[int, ...], axis: int, groups: int, factors: np.ndarray) -> np.ndarray:
    """Returns the factors of input channels, broadcastable to a kernel of this shape."""
    if groups == 1 or shape[axis] == len(factors):
        form = [1] * len(shape)
        form[axis] = -1
        return factors.reshape(form)
    # A group of outputs reads a group of inputs: (..., inputs of a group, outputs).
    by_group = factors.reshape(groups, -1).T  # (inputs of a group, groups)
    return np.repeat(by_group, shape[-1] // groups, axis=1)
