"""The bias of a quantized layer as integer kernels hold it.

Such a kernel sums products of integers, each worth input scale times weight scale, and its bias is a 32-bit integer of
the same worth (arXiv:1712.05877, section 2.4; LiteRT's quantization specification; what ONNX Runtime makes of a float
bias). A batch normalization that follows is part of the kernel, so it is the bias behind it that becomes an integer.
The steps are so fine that training need not know of them, but runtime and Keras only agree if both take them.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.graph import MOVING
from tensorflow_quantization.model.keras_internals import nodes_of, origin, reading_nodes
from tensorflow_quantization.quantizers import ActivationQuantizer

#: Beyond this many steps, float32 holds no fractions of one.
_EXACT = 2.0**22


def integer_bias(wrapper: Any) -> Any:
    """The bias that brings the layer in a wrapper, normalized if that follows, to whole steps of its products.

    Args:
        wrapper: a wrapper that has been called on Keras' symbolic tensors, so that the layers around it are known.

    Returns:
        A float32 tensor of the bias' shape, or of (channels,) for a layer without one that a normalization follows;
        `None` where nothing is rounded: no kernel, or one whose input has no quantizer, no bias at all.
    """
    quantizer, kernel = _last_product(wrapper)
    if quantizer is None or kernel is None:
        return None
    bias, normalization = getattr(wrapper.layer, "bias", None), following_normalization(wrapper)
    if bias is not None:
        own = ops.cast(bias, "float32")
    elif normalization is not None:
        own = ops.zeros(normalization.moving_mean.shape)
    else:
        return None
    weight_scale = wrapper.weight_quantizers[kernel].scale(getattr(wrapper.layer, kernel))
    step = ops.reshape(quantizer.scale() * weight_scale, (-1,))
    if step.shape[0] not in (1, math.prod(own.shape)):
        return None
    steps = (ops.reshape(own, (-1,)) + _offset(normalization)) / step
    change = (ops.round(steps) - steps) * step
    # A range that no data has set yet says nothing of the steps; a channel that is normalized to nothing has none.
    change = ops.where(ops.logical_and(quantizer.is_seen(), ops.abs(steps) < _EXACT), change, 0.0)
    return own + ops.stop_gradient(ops.reshape(change, own.shape))


def add_to_channels(wrapper: Any, outputs: Any, bias: Any) -> Any:
    """`outputs` of a layer without a bias plus one number a channel of the normalization that follows."""
    normalization = following_normalization(wrapper)
    assert normalization is not None  # else `integer_bias` has no such bias
    shape = [1] * len(outputs.shape)
    shape[normalization.axis] = -1
    return outputs + ops.cast(ops.reshape(bias, shape), outputs.dtype)


def following_normalization(wrapper: Any) -> keras.layers.BatchNormalization | None:
    """The batch normalization that alone reads what a wrapper gives, and so becomes part of its kernel."""
    readers = {id(node.operation): node.operation for node in reading_nodes(wrapper)}
    if len(readers) != 1 or wrapper.output_quantizer is not None:
        return None
    if getattr(wrapper.layer, "activation", None) not in (None, keras.activations.linear):
        return None
    (reader,) = readers.values()
    if not any(getattr(reader, "input_quantizers", ())):
        reader = getattr(reader, "layer", reader)
    rank = len(reading_nodes(wrapper)[0].input_tensors[0].shape)
    channels = 1 if getattr(wrapper.layer, "data_format", None) == "channels_first" else rank - 1
    is_one = isinstance(reader, keras.layers.BatchNormalization) and reader.axis % rank == channels
    return reader if is_one else None


def _last_product(wrapper: Any) -> tuple[ActivationQuantizer | None, str | None]:
    """The quantizer and the kernel of the product that the bias is added to."""
    kernels = list(wrapper.weight_quantizers)
    inner = getattr(wrapper, "inner_quantizer", None)  # of a separable convolution, between its two kernels
    if inner is not None:
        return inner, kernels[-1] if kernels else None
    return input_quantizer(wrapper), kernels[0] if len(kernels) == 1 else None


def input_quantizer(wrapper: Any) -> ActivationQuantizer | None:
    """The quantizer of a wrapper's only input: its own, or that of the layer which made the tensor."""
    if len(wrapper.input_quantizers) != 1:
        return None
    (own,) = wrapper.input_quantizers
    if own is not None:
        return own
    found = [_quantizer_of(tensor) for node in nodes_of(wrapper) for tensor in node.input_tensors]
    return found[0] if len({id(quantizer) for quantizer in found}) == 1 else None


def _quantizer_of(tensor: keras.KerasTensor) -> ActivationQuantizer | None:
    """The quantizer whose values `tensor` holds, moved maybe; `None` if it has other values."""
    operation, node_index, tensor_index = origin(tensor)
    if isinstance(operation, ActivationQuantizer):
        return operation
    if isinstance(operation, keras.Model):
        outputs = getattr(operation, "outputs", None)
        return _quantizer_of(outputs[tensor_index]) if outputs else None
    if (own := getattr(operation, "output_quantizer", None)) is not None:
        return own
    inputs = nodes_of(operation)[node_index].input_tensors
    if type(getattr(operation, "layer", operation)).__name__ not in MOVING or len(inputs) != 1:
        return None
    (own,) = getattr(operation, "input_quantizers", [None])
    return own if own is not None else _quantizer_of(inputs[0])


def _offset(normalization: keras.layers.BatchNormalization | None) -> Any:
    """What a normalization adds, seen from before it: factor * (x + offset) is what it makes of x."""
    if normalization is None:
        return 0.0
    offset = -ops.cast(normalization.moving_mean, "float32")
    if normalization.center:
        shift = normalization.beta * ops.sqrt(normalization.moving_variance + normalization.epsilon)
        offset = offset + (shift / normalization.gamma if normalization.scale else shift)
    return offset
