"""Layers with what the file is to hold in the place of their variables, as TensorFlow's converter takes them.

The converter copies a constant at each of its steps: it would take 75 bytes for a weight before it even starts to
convert. So kernels are variables of TensorFlow, which go to it once, through a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.export.litert.affine import Affine, inner_layer
from tensorflow_quantization.export.litert.products import product_of
from tensorflow_quantization.export.onnx.emission import to_numpy
from tensorflow_quantization.model.graph import Tensor
from tensorflow_quantization.model.interpreter import infer
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.base import output_channel_axis
from tensorflow_quantization.wrappers.bias import integer_bias

#: Computes a call from its arguments, on tensors of TensorFlow.
Step = Callable[..., Any]


def fake_quantize(quantizer: ActivationQuantizer) -> Callable[[Any], Any]:
    """What the converter reads the integers of a tensor from."""
    scale, zero_point = (float(p) for p in quantizer.parameters())
    limits = np.iinfo(quantizer.scheme.dtype)
    low, high = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale

    def quantize(x):
        import tensorflow as tf

        return tf.quantization.fake_quant_with_min_max_args(x, min=low, max=high, num_bits=8)

    return quantize


def identity(x, **kwargs):
    """Nothing to compute."""
    return x


def constant_values(operation: Any) -> dict[str, np.ndarray]:
    """The variables of a layer, or of that in a wrapper, by path; kernels and bias as they are once quantized."""
    layer, quantizers = inner_layer(operation), getattr(operation, "weight_quantizers", {})
    values = {v.path: to_numpy(v, v.dtype) for v in layer.variables}
    for name, quantizer in quantizers.items():
        path = getattr(layer, name).path
        values[path] = quantizer.dequantized(values[path])
    if quantizers and getattr(layer, "bias", None) is not None:
        bias = _integer_bias(operation)
        values[layer.bias.path] = _bias(values[layer.bias.path] if bias is None else bias)
    return values


def _integer_bias(operation: Any) -> np.ndarray | None:
    bias = integer_bias(operation)
    return None if bias is None else to_numpy(bias, "float32")


def constant_layer(layer: keras.layers.Layer, values: dict[str, np.ndarray], inner: Step) -> Step:
    """The layer with `values` in the place of its variables; for `inner` see `product_of`."""
    held = {path: _held(array) for path, array in values.items()}
    if (product := product_of(layer, inner)) is not None:
        return partial(product, layer, held)

    def step(*args, **kwargs):
        mapping = [(v, keras.ops.convert_to_tensor(held[v.path], v.dtype)) for v in layer.variables]
        with keras.StatelessScope(mapping, initialize_variables=False):
            return infer(layer, *args, **kwargs)

    return step


def folded_layer(wrapper: BaseQuantizeWrapper, affine: Affine, inner: Step) -> Step:
    """The layer in a wrapper, with the normalization that follows it in its last kernel and its bias."""
    layer, values, name = wrapper.layer, constant_values(wrapper), wrapper.kernels[-1]
    path = getattr(layer, name).path
    shape = [1] * values[path].ndim
    for axis in output_channel_axis(layer, name):
        shape[axis] = values[path].shape[axis]
    values[path] = _float32(values[path] * affine.factor.reshape(shape))
    if layer.use_bias:
        values[layer.bias.path] = _bias(values[layer.bias.path] * affine.factor + affine.shift)
        return constant_layer(layer, values, inner)
    own = _integer_bias(wrapper)
    shift = _bias(affine.shift if own is None else affine.shift + own * affine.factor)
    product = constant_layer(layer, values, inner)
    return lambda x, **kwargs: product(x, **kwargs) + shift


def rescaled(tensor: Tensor) -> Step:
    """`tensor`, for an output of another scale: a convolution of one pixel with weights of one."""
    channels = tensor.shape[-1]
    return identity if channels is None else scaled_channels(Affine(np.ones(channels), np.zeros(channels)))


def scaled(affine: Affine) -> Step:
    """A factor and a shift for each channel; a product if it is one factor for all of them, which is faster."""
    factor = np.float32(affine.factor[0])
    # The converter would leave out a product with one, and two quantizers in a row would be left.
    if affine.shift.any() or (affine.factor != affine.factor[0]).any() or factor in (0, 1):
        return scaled_channels(affine)
    return lambda x: x * factor


def scaled_channels(affine: Affine) -> Step:
    """A factor and a shift for each channel as a convolution of one pixel.

    As a product and a sum it would need integers for what flows in between, and one scale for all factors; weights of
    a convolution have a scale for each channel.
    """
    channels = affine.factor.size
    kernel, bias = _float32(affine.factor).reshape(1, 1, channels, 1), _bias(affine.shift)

    def step(x, **kwargs):
        import tensorflow as tf

        image = x if len(x.shape) == 4 else tf.reshape(x, (-1, 1, 1, channels))
        y = tf.nn.depthwise_conv2d(image, kernel, (1, 1, 1, 1), "VALID") + bias
        return y if image is x else tf.reshape(y, [-1 if d is None else d for d in x.shape])

    return step


def _held(array: np.ndarray) -> Any:
    """A kernel as a variable; what is small as it is."""
    import tensorflow as tf

    return tf.Variable(array, trainable=False) if array.ndim > 1 and array.dtype == np.float32 else array


def _bias(array: np.ndarray) -> np.ndarray:
    """A bias in float32, its elements not all the same.

    A constant with one value in all channels the converter would make integers with the scale of the first channel.
    """
    array = np.array(array, np.float32)
    if array.size > 1 and array[0] and (array == array[0]).all():
        array[0] = np.nextafter(array[0], np.float32(np.inf))
    return array


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
