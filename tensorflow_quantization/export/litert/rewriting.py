"""Layers and operations as other TensorFlow operators, where Keras' operators would run in float or wrong.

Some are two integer operators. The tensor between the two is quantized so that the second does not round: Keras rounds
once, after the second.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tensorflow_quantization.export.litert.constants import Step, fake_quantize_range, limits_of
from tensorflow_quantization.export.onnx.emission import to_numpy
from tensorflow_quantization.model.activations import Activation, activation_of
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.quantizers import ActivationQuantizer


def rewritten(call: Call, output: ActivationQuantizer | None) -> Step | None:
    """A function that computes `call` with operators that suit LiteRT; `None` if Keras' operators do.

    Args:
        call: the call of a layer without wrapper, or of an operation.
        output: the quantizer of its output.
    """
    if activation_of(call.operation) is Activation.HARD_SIGMOID and output is not None and output.scheme.fixed:
        return _hard_sigmoid
    if is_one_of(call, ("Average",)) and len(call.inputs) == 2 and output is not None and output.scheme.bits == 8:
        return _average(output)
    if Trait.DIVIDES in traits(call):
        return _divide(call.outputs[0].dtype)
    if is_one_of(call, ("OneHot", "CategoryEncoding")) and len(call.inputs) == 1:
        return _encode(call)
    if is_one_of(call, ("Repeat",)) and isinstance(call.operation.repeats, int):
        return _repeat(call)
    if is_one_of(call, ("UpSampling2D",)) and "float" in call.inputs[0].dtype:  # LiteRT resizes no int32
        return _upsample(call)
    if is_one_of(call, ("Argmax", "Argmin")):
        return _position(call.operation)
    return None


def _hard_sigmoid(x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    # [0, 6] and the output's [0, 1] have the same integers.
    return fake_quantize_range(0.0, 6.0)(tf.nn.relu6(x + 3.0)) * np.float32(1 / 6)


def _average(output: ActivationQuantizer) -> Step:
    low, high = limits_of(output)

    def step(tensors: Any, **kwargs: Any) -> Any:
        first, second = tensors
        return fake_quantize_range(2 * low, 2 * high)(first + second) * np.float32(0.5)

    return step


def _divide(dtype: str) -> Step:
    """A quotient without the operator DIV, whose integer kernel is wrong by up to half of its range.

    Args:
        dtype: of the quotient. The operands may be integers.
    """

    def step(x: Any, y: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        x = keras.ops.cast(x, dtype)
        if keras.ops.is_tensor(y):
            return x * tf.pow(keras.ops.cast(y, dtype), -1.0)  # both in float
        return x * (1.0 / to_numpy(y, "float32"))

    return step


def _encode(call: Call) -> Step:
    """Numbers of classes as rows of the identity matrix: the converter cannot quantize the operator ONE_HOT."""
    layer, shape = call.operation, call.outputs[0].shape
    classes = getattr(layer, "num_classes", None) or layer.num_tokens
    table = np.concatenate([np.eye(classes), np.zeros((1, classes))]).astype(np.float32)
    mode = getattr(layer, "output_mode", "one_hot")

    def step(x: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        index = tf.cast(x, "int32")
        index = tf.where(tf.logical_and(index >= 0, index < classes), index, classes)  # else a row of zeros
        y = tf.gather(table, index)
        if mode == "multi_hot":
            return tf.reduce_max(y, axis=-2)
        if mode == "count":
            return tf.reduce_sum(fake_quantize_range(0.0, 1.0)(y), axis=-2)
        if call.is_layer:  # may drop an axis of one element
            return tf.reshape(y, [-1, *shape[1:]])
        return y if layer.axis == -1 else keras.ops.moveaxis(y, -1, layer.axis)

    return step


def _position(operation: Any) -> Step:
    """Where the greatest or least value is: Keras looks at the bits of floats, for which LiteRT has no operator."""
    name = type(operation).__name__.lower()

    def step(x: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        axis = 0 if operation.axis is None else operation.axis
        y = getattr(tf, name)(tf.reshape(x, [-1]) if operation.axis is None else x, axis=axis, output_type="int32")
        if not operation.keepdims:
            return y
        return tf.reshape(y, [1] * x.shape.rank) if operation.axis is None else tf.expand_dims(y, axis)

    return step


def _repeat(call: Call) -> Step | None:
    """Repetition to a known shape; `None` if the shape is unknown.

    TensorFlow would compute the shape when the file runs, and after four such shapes the converter no longer knows the
    number of channels: it then rejects a convolution.
    """
    axis, repeats, shape = call.operation.axis, call.operation.repeats, call.outputs[0].shape
    if axis is None or axis % len(shape) == 0 or None in shape[1:]:
        return None
    axis %= len(shape)
    multiples = [repeats if i == axis + 1 else 1 for i in range(len(shape) + 1)]

    def step(x: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        return tf.reshape(tf.tile(tf.expand_dims(x, axis + 1), multiples), [-1, *shape[1:]])

    return step


def _upsample(call: Call) -> Step:
    """UpSampling2D as one operator: Keras repeats twice, see `_repeat`, and needs a size that is known now."""
    layer = call.operation
    first = layer.data_format == "channels_first"

    def step(x: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        image = tf.transpose(x, (0, 2, 3, 1)) if first else x
        known = image.shape[1:3].is_fully_defined()
        size = (image.shape[1:3] if known else tf.shape(image)[1:3]) * tf.constant(layer.size)
        if layer.interpolation == "nearest":
            y = tf.raw_ops.ResizeNearestNeighbor(images=image, size=size)
        else:
            y = tf.image.resize(image, size, method=layer.interpolation)
        y = tf.ensure_shape(y, [None, None, None, image.shape[-1]])
        return tf.transpose(y, (0, 3, 1, 2)) if first else y

    return step
