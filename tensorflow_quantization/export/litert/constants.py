"""Layers as TensorFlow functions in which the weights of the file replace the variables of Keras.

TensorFlow's converter copies constants at each of its steps: it would use 75 bytes per weight before it starts to
convert. So kernels are TensorFlow variables, which the converter reads once, from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.litert.affine import Affine, inner_layer
from tensorflow_quantization.export.litert.products import product_of
from tensorflow_quantization.export.onnx.emission import to_numpy
from tensorflow_quantization.model.graph import Tensor
from tensorflow_quantization.model.interpreter import infer
from tensorflow_quantization.model.keras_internals import keeping_mask
from tensorflow_quantization.model.weights import merged_array, merged_weights, substitutes, variable_of
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.bias import integer_bias
from tensorflow_quantization.wrappers.channels import output_channel_axis

#: Computes a call from its arguments, which are TensorFlow tensors.
Step = Callable[..., Any]


def fake_quantize(quantizer: ActivationQuantizer) -> Callable[[Any], Any]:
    """The fake-quantization operator from which the converter reads scale and zero point of a tensor."""
    return fake_quantize_range(*limits_of(quantizer), np.iinfo(quantizer.scheme.dtype).bits)


def limits_of(quantizer: ActivationQuantizer) -> tuple[float, float]:
    """The values of the least and the greatest integer of a quantizer."""
    scale, zero_point = (float(p) for p in quantizer.parameters())
    limits = np.iinfo(quantizer.scheme.dtype)
    return (limits.min - zero_point) * scale, (limits.max - zero_point) * scale


def fake_quantize_range(low: float, high: float, bits: int = 8) -> Callable[[Any], Any]:
    """The fake-quantization operator whose least and greatest integer stand for `low` and `high`."""

    def quantize(x):
        import tensorflow as tf

        return keeping_mask(x, tf.quantization.fake_quant_with_min_max_args(x, min=low, max=high, num_bits=bits))

    return quantize


def identity(x, **kwargs):
    """`x` unchanged."""
    return x


def constant_values(operation: Any) -> dict[int, np.ndarray]:
    """The variables of a layer or of the layer in a wrapper; kernels and bias after fake quantization.

    By their `id`: the cells of both directions of a `Bidirectional` layer may have the same paths.
    """
    layer, quantizers = inner_layer(operation), getattr(operation, "weight_quantizers", {})
    values = {id(v): to_numpy(v, v.dtype) for v in layer.variables}
    for name in dict.fromkeys([*quantizers, *merged_weights(layer)]):
        weight = merged_array(layer, name)
        if name in quantizers:
            weight = quantizers[name].dequantized(weight)
        values.update((id(v), to_numpy(value, v.dtype)) for v, value in substitutes(layer, name, weight))
    if quantizers and getattr(layer, "bias", None) is not None:
        bias = integer_bias(operation, np)
        values[id(layer.bias)] = _bias(values[id(layer.bias)] if bias is None else bias)
    return values


def constant_layer(
    layer: keras.layers.Layer, values: dict[int, np.ndarray], inner: Step, keeps_floats: bool = False
) -> Step:
    """A function that computes the layer with `values` instead of its variables.

    Args:
        layer: a layer without a wrapper.
        values: the arrays by the `id` of the variable.
        inner: see `product_of`.
        keeps_floats: keep the converter from rounding the kernels to 8 bits, which it does between integers, and in any
            transposed convolution.
    """
    held = {key: _held(array) for key, array in values.items()}
    # With a reshape after it, the converter would round the activation of an EinsumDense in floats.
    as_in_keras = keeps_floats and isinstance(layer, keras.layers.EinsumDense)
    product = None if as_in_keras else product_of(layer, inner)

    def step(*args, **kwargs):
        used = {key: _not_constant(x, args) for key, x in held.items()} if keeps_floats else held
        if product is not None:
            return product(layer, used, *args, **kwargs)
        mapping = [(v, keras.ops.convert_to_tensor(used[id(v)], v.dtype)) for v in layer.variables]
        with keras.StatelessScope(mapping, initialize_variables=False):
            return infer(layer, *args, **kwargs)

    return step


def plus_zero(value: Any, x: Any) -> Any:
    """A value plus a zero, computed from the size of a tensor, that the converter does not know.

    So the converter neither takes the value for a constant nor gives it a scale.
    """
    import tensorflow as tf

    return value + tf.minimum(tf.cast(tf.shape(x)[0], value.dtype), 0)


def _not_constant(value: Any, args: Any) -> Any:
    import tensorflow as tf

    if not isinstance(value, tf.Variable):
        return value
    return plus_zero(value, next(x for x in tree.flatten(args) if tf.is_tensor(x)))


def folded_layer(wrapper: BaseQuantizeWrapper, affine: Affine, inner: Step) -> Step:
    """A function that computes the layer in a wrapper, with `affine` folded into its last kernel and its bias."""
    layer, values, name = wrapper.layer, constant_values(wrapper), wrapper.kernels[-1]
    key = id(variable_of(layer, name))
    shape = [1] * values[key].ndim
    for axis in output_channel_axis(layer, name):
        shape[axis] = values[key].shape[axis]
    values[key] = _float32(values[key] * affine.factor.reshape(shape))
    if layer.bias is not None:
        values[id(layer.bias)] = _bias(values[id(layer.bias)] * affine.factor + affine.shift)
        return constant_layer(layer, values, inner)
    own = integer_bias(wrapper, np)
    shift = _bias(affine.shift if own is None else affine.shift + own * affine.factor)
    product = constant_layer(layer, values, inner)
    return lambda x, **kwargs: product(x, **kwargs) + shift


def rescaled(tensor: Tensor) -> Step:
    """A 1x1 convolution with weights of one, whose output can have another scale than `tensor`, and has its mask."""
    channels = tensor.shape[-1] or 1  # of an unknown number, each value is an image of one channel
    step = scaled_channels(Affine(np.ones(channels), np.zeros(channels)))
    return lambda x, **kwargs: keeping_mask(x, step(x, **kwargs))


def scaled(affine: Affine) -> Step:
    """A factor and a shift per channel: a multiplication, which is faster, for equal factors and zero shifts."""
    factor = np.float32(affine.factor[0])
    # The converter removes a multiplication by one, and then two quantizers would follow each other.
    if affine.shift.any() or (affine.factor != affine.factor[0]).any() or factor in (0, 1):
        return scaled_channels(affine)
    return lambda x: x * factor


def scaled_channels(affine: Affine) -> Step:
    """A factor and a shift per channel as a depthwise 1x1 convolution, whose weights have per-channel scales.

    A multiplication and an addition would need a quantizer between them, and one scale for all factors.
    """
    channels = affine.factor.size
    kernel, bias = _float32(affine.factor).reshape(1, 1, channels, 1), _bias(affine.shift)

    def step(x, **kwargs):
        import tensorflow as tf

        image = x if len(x.shape) == 4 and x.shape[-1] == channels else tf.reshape(x, (-1, 1, 1, channels))
        y = tf.nn.depthwise_conv2d(image, kernel, (1, 1, 1, 1), "VALID") + bias
        if image is not x:
            known = x.shape[1:].is_fully_defined()  # TensorFlow takes one unknown size in a constant shape
            y = tf.reshape(y, (-1, *x.shape[1:]) if known else tf.shape(x))
        return keeping_mask(x, y)

    return step


def _held(array: np.ndarray) -> Any:
    """A kernel as a TensorFlow variable; other arrays unchanged."""
    import tensorflow as tf

    return tf.Variable(array, trainable=False) if array.ndim > 1 and array.dtype == np.float32 else array


def _bias(array: np.ndarray) -> np.ndarray:
    """A float32 bias whose elements are not all equal: one differs in the last bit.

    The converter would quantize a constant with equal elements with the scale of the first channel.
    """
    array = np.array(array, np.float32)
    if array.size > 1 and array.flat[0] and (array == array.flat[0]).all():
        array.flat[0] = np.nextafter(array.flat[0], np.float32(np.inf))
    return array


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
