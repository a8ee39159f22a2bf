"""The bias of a quantized layer as integer kernels hold it.

Such a kernel sums products of integers, each worth input scale times weight scale. Its bias is a 32-bit integer of the
same worth (arXiv:1712.05877, section 2.4; LiteRT's quantization specification; ONNX Runtime rounds a float bias alike).
A batch normalization that follows is part of the kernel, so the bias after normalization becomes an integer. The steps
are so fine that training need not know of them, but runtime and Keras only agree if both take them.

`quantize_model` decides which quantizer scales the input and which normalization follows. The wrapper has their names
in its config, and finds the layers by them.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.keras_internals import nodes_of, origin, reading_nodes
from tensorflow_quantization.quantizers import ActivationQuantizer

#: Beyond this many steps, float32 holds no fractions of one.
_EXACT = 2.0**22


def integer_bias(wrapper: Any) -> Any:
    """The bias that brings the layer in a wrapper, normalized if that follows, to whole steps of its products.

    Args:
        wrapper: a wrapper in a model, so that the layers which its config names can be found.

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
    """The batch normalization that is part of a wrapper's kernel, as its config names it; `None` if there is none."""
    readers = {node.operation.name: node.operation for node in reading_nodes(wrapper)}
    reader = readers.get(wrapper.normalization)
    return getattr(reader, "layer", reader)


def _last_product(wrapper: Any) -> tuple[ActivationQuantizer | None, str | None]:
    """The quantizer and the kernel of the product that the bias is added to."""
    kernels = list(wrapper.weight_quantizers)
    inner = getattr(wrapper, "inner_quantizer", None)  # of a separable convolution, between its two kernels
    if inner is not None:
        return inner, kernels[-1] if kernels else None
    return input_quantizer(wrapper), kernels[0] if len(kernels) == 1 else None


def input_quantizer(wrapper: Any) -> ActivationQuantizer | None:
    """The quantizer of a wrapper's only input: its own, or that of the layer which its config names."""
    if len(wrapper.input_quantizers) != 1:
        return None
    (own,) = wrapper.input_quantizers
    if own is not None or wrapper.bias_input is None:
        return own
    name, *inside = wrapper.bias_input.split("/")
    source = _source(wrapper, name)
    for inner in inside:
        source = source.get_layer(inner) if isinstance(source, keras.Model) else None
    if source is None or isinstance(source, ActivationQuantizer):
        return source
    if source.output_quantizer is not None:
        return source.output_quantizer
    (moved,) = source.input_quantizers  # of a layer that moves data, and has no quantizer after it
    return moved


def _source(operation: keras.Operation, name: str) -> Any:
    """The operation of this name before `operation`, with only operations of one input between the two."""
    for node in nodes_of(operation):
        while len(node.input_tensors) == 1:
            source, index, _ = origin(node.input_tensors[0])
            if source.name == name:
                return source
            node = nodes_of(source)[index]
    return None


def _offset(normalization: keras.layers.BatchNormalization | None) -> Any:
    """What a normalization adds, seen from before it: factor * (x + offset) is what it makes of x."""
    if normalization is None:
        return 0.0
    offset = -ops.cast(normalization.moving_mean, "float32")
    if normalization.center:
        shift = normalization.beta * ops.sqrt(normalization.moving_variance + normalization.epsilon)
        offset = offset + (shift / normalization.gamma if normalization.scale else shift)
    return offset
