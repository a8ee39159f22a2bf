"""Dense layers and convolutions as a single TensorFlow operator, where Keras uses several.

The converter would keep the additional operators between the product and its bias. No quantizer is there, so they
would compute in float. Transposed convolutions get a bias, without which an activation after them would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.model.equation import Equation, as_matrix
from tensorflow_quantization.model.weights import variable_of
from tensorflow_quantization.wrappers.layers import SeparableBaseQuantizeWrapper

#: Computes a layer from the layer, the arrays that replace its variables by `id`, and the input.
Product = Callable[..., Any]

#: A bias that is zero as an integer of any scale that the converter has.
_ROUNDED_TO_ZERO = 1e-30


def product_of(layer: keras.layers.Layer, inner: Callable[[Any], Any]) -> Product | None:
    """A function that replaces the `call` of `layer`; `None` if the `call` can stay.

    Args:
        layer: a layer without a wrapper.
        inner: the quantizer between the two kernels of a separable convolution, or `identity`.
    """
    if type(layer) is keras.layers.Dense:
        return _dense
    if type(layer) is keras.layers.EinsumDense:
        equation = as_matrix(layer)
        return None if equation is None else partial(_einsum_dense, equation)
    if type(layer) in (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose):
        return _transposed
    if SeparableBaseQuantizeWrapper.divides(layer):
        return partial(_separable, inner)
    if getattr(layer, "data_format", None) != "channels_last" or max(np.ravel(getattr(layer, "dilation_rate", 1))) == 1:
        return None
    if type(layer) in (keras.layers.Conv1D, keras.layers.Conv2D):
        return _dilated
    return _dilated_depthwise if type(layer) in (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D) else None


def _dense(layer: Any, values: dict[int, Any], x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    return _finish(layer, values, tf.matmul(x, values[id(variable_of(layer, "kernel"))]))


def _einsum_dense(equation: Equation, layer: Any, values: dict[int, Any], x: Any, **kwargs: Any) -> Any:
    """As one product with a matrix, between transpositions and reshapes that move integers."""
    import tensorflow as tf

    kernel, free = values[id(variable_of(layer, "kernel"))], len(equation.free)
    rows, columns = (
        math.prod(kernel.shape[equation.kernel.index(a)] for a in axes) for axes in (equation.summed, equation.made)
    )
    x = _transpose(x, equation.inputs, equation.free + equation.summed)
    sizes = _sizes(x, free)
    y = x if len(equation.summed) == 1 else tf.reshape(x, [*sizes, rows])
    y = tf.matmul(y, tf.reshape(_transpose(kernel, equation.kernel, equation.summed + equation.made), (rows, columns)))
    if layer.bias is not None:
        y = y + _bias_of_columns(equation, layer, kernel, values[id(layer.bias)])
    y = y if layer.activation is None else layer.activation(y)
    made = [kernel.shape[equation.kernel.index(a)] for a in equation.made]
    y = y if len(made) == 1 else tf.reshape(y, [*sizes, *made])
    return _transpose(y, equation.free + equation.made, equation.output)


def _sizes(x: Any, count: int) -> list[Any]:
    """The first sizes of a tensor, for a reshape: one that is unknown is -1, more are computed by the file."""
    import tensorflow as tf

    known = x.shape[:count].as_list()
    if known.count(None) > 1:
        shape = tf.shape(x)
        return [shape[i] if size is None else size for i, size in enumerate(known)]
    return [-1 if size is None else size for size in known]


def _transpose(x: Any, before: str, after: str) -> Any:
    import tensorflow as tf

    return x if before == after else tf.transpose(x, [before.index(axis) for axis in after])


def _bias_of_columns(equation: Equation, layer: Any, kernel: Any, bias: Any) -> Any:
    """The bias as a vector, one number for each column of the matrix."""
    import tensorflow as tf

    axes = equation.output[len(equation.output) - len(bias.shape) :]
    bias = tf.reshape(bias, [size for size, axis in zip(bias.shape, axes, strict=True) if axis in equation.made])
    held = "".join(axis for axis in axes if axis in equation.made)
    bias = _transpose(bias, held, "".join(axis for axis in equation.made if axis in held))
    sizes = [kernel.shape[equation.kernel.index(a)] for a in equation.made]
    # An axis of the bias may have size 1, or be none of the bias.
    of_bias = dict(zip((a for a in equation.made if a in held), bias.shape, strict=True))
    spread = tf.reshape(bias, [of_bias.get(a, 1) for a in equation.made])
    return tf.reshape(tf.broadcast_to(spread, sizes), [-1])


def _transposed(layer: Any, values: dict[int, Any], x: Any, **kwargs: Any) -> Any:
    """With a bias that is not zero. The converter fuses an activation after it only with such a bias."""
    y = keras.ops.conv_transpose(
        x,
        values[id(variable_of(layer, "kernel"))],
        layer.strides,
        layer.padding,
        layer.output_padding,
        layer.data_format,
        layer.dilation_rate,
    )
    bias = values[id(layer.bias)] if layer.use_bias else np.zeros(layer.filters, np.float32)
    if not np.any(bias):
        bias = _ROUNDED_TO_ZERO * np.arange(1, layer.filters + 1, dtype=np.float32)  # equal ones would get one scale
    if layer.data_format == "channels_first":
        bias = keras.ops.reshape(bias, (-1, *[1] * layer.rank))
    y = y + bias
    return y if layer.activation is None else layer.activation(y)


def _dilated(layer: Any, values: dict[int, Any], x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    padding = layer.padding.upper()
    if padding == "CAUSAL":
        x = tf.pad(x, [(0, 0), (layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0), (0, 0)])
        padding = "VALID"
    image, kernel = _image(layer, x), _image_kernel(values[id(variable_of(layer, "kernel"))])
    # The function that Keras calls would rearrange the image for a dilation.
    y = tf.raw_ops.Conv2D(
        input=image,
        filter=kernel,
        strides=[1, layer.strides[0], layer.strides[-1], 1],
        padding=padding,
        dilations=_dilations(layer),
    )
    return _without_row(layer, _finish(layer, values, y))


def _dilated_depthwise(layer: Any, values: dict[int, Any], x: Any, **kwargs: Any) -> Any:
    kernel = _image_kernel(values[id(variable_of(layer, "kernel"))])
    return _without_row(layer, _finish(layer, values, _depthwise(layer, _image(layer, x), kernel)))


def _image(layer: Any, x: Any) -> Any:
    """A sequence as an image with one row; an image is unchanged."""
    import tensorflow as tf

    return x if layer.rank == 2 else tf.expand_dims(x, 1)


def _without_row(layer: Any, y: Any) -> Any:
    import tensorflow as tf

    return y if layer.rank == 2 else tf.squeeze(y, 1)


def _image_kernel(kernel: Any) -> Any:
    import tensorflow as tf

    return kernel if len(kernel.shape) == 4 else tf.expand_dims(kernel, 0)


def _dilations(layer: Any) -> list[int]:
    """The dilations of an image; a sequence is its only row."""
    return [1, 1 if layer.rank == 1 else layer.dilation_rate[0], layer.dilation_rate[-1], 1]


def _separable(inner: Callable[[Any], Any], layer: Any, values: dict[int, Any], x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    def from_keras(x: Any) -> Any:
        return x if layer.data_format == "channels_last" else keras.ops.moveaxis(x, 1, -1)

    def to_keras(x: Any) -> Any:
        return x if layer.data_format == "channels_last" else keras.ops.moveaxis(x, -1, 1)

    depthwise, pointwise = values[id(layer.depthwise_kernel)], values[id(layer.pointwise_kernel)]
    image = _image(layer, from_keras(x))
    y = _depthwise(layer, image, tf.reshape(depthwise, (-1, *depthwise.shape[-3:])))
    y = from_keras(inner(to_keras(y)))
    y = _finish(layer, values, tf.nn.conv2d(y, tf.reshape(pointwise, (1, 1, *pointwise.shape[-2:])), 1, "VALID"))
    return to_keras(_without_row(layer, y))


def _depthwise(layer: Any, image: Any, kernel: np.ndarray) -> Any:
    import tensorflow as tf

    # tf.nn.depthwise_conv2d would rearrange the image for a dilation. The kernel needs equal strides, so an image with
    # a single row uses the stride of the columns for both axes.
    return tf.raw_ops.DepthwiseConv2dNative(
        input=image,
        filter=kernel,
        strides=[1, layer.strides[0], layer.strides[-1], 1],
        padding=layer.padding.upper(),
        dilations=_dilations(layer),
    )


def _finish(layer: Any, values: dict[int, Any], y: Any) -> Any:
    """Bias and activation."""
    if layer.use_bias:
        y = y + values[id(layer.bias)]
    return y if layer.activation is None else layer.activation(y)
