"""The output channels of kernels."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.keras_classes import keras_class_names


def output_channel_axis(layer: keras.layers.Layer, kernel: str) -> tuple[int, ...]:
    """Returns the axes of the output channels of a kernel, counted from its end.

    | kernel | axes | output channels |
    |---|---|---|
    | depthwise | (..., input channels, multiplier) | input channels x multiplier |
    | transposed | (..., output channels, input channels) | second to last axis |
    | EinsumDense | named in its equation | axes that the kernel adds |
    | any other | (..., output channels) | last axis |
    """
    if kernel == "depthwise_kernel" or is_depthwise(layer):
        return (-2, -1)
    if "Transpose" in _class_names(layer):
        return (-2,)
    if isinstance(layer, keras.layers.EinsumDense):
        operands, output = layer.equation.replace(" ", "").replace("...", "").split("->")
        inputs, weights = operands.split(",")
        return tuple(i - len(weights) for i, axis in enumerate(weights) if axis in output and axis not in inputs)
    return (-1,)


def is_depthwise(layer: keras.layers.Layer) -> bool:
    """Returns whether the layer is a depthwise convolution of Keras, or extends one."""
    return "DepthwiseConv" in _class_names(layer)


def _class_names(layer: keras.layers.Layer) -> str:
    return " ".join(keras_class_names(type(layer)))
