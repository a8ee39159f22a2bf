"""The bias of a quantized layer, rounded as in an integer kernel.

An integer kernel sums products of integers. One unit of the sum, its step, is input scale x weight scale. The kernel
holds the bias as a 32-bit integer in the same steps (arXiv:1712.05877, section 2.4; LiteRT's quantization
specification; ONNX Runtime rounds a float bias in the same way). If a BatchNormalization is folded into the kernel, the
bias after folding is rounded. The steps are too fine to matter in training, but Keras and the runtime agree only if
both round.

`quantize_model` decides which quantizer scales the input and which BatchNormalization is folded. The config of the
wrapper holds the names of these layers.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.model.keras_internals import nodes_of, origin, reading_nodes
from tensorflow_quantization.model.weights import float32_array, merged, merged_array
from tensorflow_quantization.quantizers import ActivationQuantizer

#: From this many steps on, float32 resolves half a step at best, so there is nothing to round.
_EXACT = 2.0**22


def integer_bias(wrapper: Any, xp: Any = ops) -> Any:
    """Returns the bias of a wrapped layer, rounded to whole steps of input scale x weight scale.

    If a BatchNormalization is folded into the layer, the returned bias makes the folded bias a whole number of steps.

    Args:
        wrapper: a wrapper within a model, which holds the layers that the config names.
        xp: the array namespace that computes: `keras.ops` (default) in a model, `numpy` for a file, which then has the
            same bytes on every backend.

    Returns:
        A float32 tensor or array. Its shape is the bias' shape, or (channels,) for a layer without a bias into which a
        BatchNormalization is folded. `None` if nothing is rounded: there is no quantized kernel, no quantized input, no
        bias at all, or the layer multiplies numbers of FP8 or weights in blocks.
    """
    quantizer, kernel = _last_product(wrapper)
    if quantizer is None or kernel is None:
        return None
    bias, normalization = getattr(wrapper.layer, "bias", None), following_normalization(wrapper)
    if bias is not None:
        own = _float32(bias, xp)
    elif normalization is not None:
        own = xp.zeros(normalization.moving_mean.shape, "float32")
    else:
        return None
    weights = wrapper.weight_quantizers[kernel]
    if quantizer.scheme.floating or weights.scheme.floating:
        return None  # products of FP8 numbers are summed in float, and so is the bias
    if weights.scheme.block_size is not None:
        return None  # such weights are multiplied in float
    if xp is np:
        (scale, _), (weight_scale, _) = quantizer.parameters(), weights.parameters(merged_array(wrapper.layer, kernel))
    else:
        scale, weight_scale = quantizer.scale(), weights.scale(merged(wrapper.layer, kernel))
    step = xp.reshape(scale * weight_scale, (-1,))
    if step.shape[0] not in (1, math.prod(own.shape)):
        return None
    # A gamma of zero makes `steps` infinite or NaN; the comparison below is false for both.
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = (xp.reshape(own, (-1,)) + _offset(normalization, xp)) / step
        change = (xp.round(steps) - steps) * step
    seen = quantizer.seen if xp is np else quantizer.is_seen()
    # No rounding while the range is initial, since the step is not known yet.
    change = xp.where(xp.logical_and(seen, xp.abs(steps) < _EXACT), change, xp.zeros_like(change))
    change = xp.reshape(change, own.shape)
    return own + (change if xp is np else ops.stop_gradient(change))


def add_to_channels(wrapper: Any, outputs: Any, bias: Any) -> Any:
    """Returns `outputs` of a layer without a bias plus `bias`, one value for each channel of the normalization."""
    normalization = following_normalization(wrapper)
    assert normalization is not None  # else `integer_bias` has no such bias
    shape = [1] * len(outputs.shape)
    shape[normalization.axis] = -1
    return outputs + ops.cast(ops.reshape(bias, shape), outputs.dtype)


def following_normalization(wrapper: Any) -> keras.layers.BatchNormalization | None:
    """Returns the BatchNormalization that is folded into a wrapped layer; `None` if there is none."""
    readers = {node.operation.name: node.operation for node in reading_nodes(wrapper)}
    reader = readers.get(wrapper.normalization)
    return getattr(reader, "layer", reader)


def _last_product(wrapper: Any) -> tuple[ActivationQuantizer | None, str | None]:
    """Returns the input quantizer and the kernel of the product that the bias is added to."""
    kernels = list(wrapper.weight_quantizers)
    inner = getattr(wrapper, "inner_quantizer", None)  # between the two kernels of a separable convolution
    if inner is not None:
        return inner, kernels[-1] if kernels else None
    return input_quantizer(wrapper), kernels[0] if len(kernels) == 1 else None


def input_quantizer(wrapper: Any) -> ActivationQuantizer | None:
    """Returns the quantizer of the only input, in the wrapper or in its `bias_input`; `None` if there is none."""
    if wrapper.reads is not None:
        return wrapper.reads()
    if len(wrapper.input_quantizers) != 1:
        return None
    (own,) = wrapper.input_quantizers
    return own if own is not None or wrapper.bias_input is None else named_quantizer(wrapper, wrapper.bias_input)


def named_quantizer(wrapper: Any, path: str) -> ActivationQuantizer | None:
    """Returns the quantizer that sets the scale of an input of a wrapper; `None` if there is none.

    Args:
        wrapper: a wrapper within a model.
        path: the layer before it that has the quantizer: its name, after the names of nested models that hold it.
    """
    name, *inside = path.split("/")
    source = _source(wrapper, name)
    for inner in inside:
        source = source.get_layer(inner) if isinstance(source, keras.Model) else None
    if source is None or isinstance(source, ActivationQuantizer):
        return source
    if source.output_quantizer is not None:
        return source.output_quantizer
    (moved,) = source.input_quantizers  # a layer that only moves data keeps the scale of its input
    return moved


def _source(operation: keras.Operation, name: str) -> Any:
    """Returns the operation of this name before `operation`; all operations between the two have one input."""
    for tensor in (tensor for node in nodes_of(operation) for tensor in node.input_tensors):
        inputs = [tensor]
        while len(inputs) == 1:
            source, index, _ = origin(inputs[0])
            if source.name == name:
                return source
            inputs = nodes_of(source)[index].input_tensors
    return None


def _offset(normalization: keras.layers.BatchNormalization | None, xp: Any) -> Any:
    """Returns the offset in: BatchNormalization(x) = factor * (x + offset); 0 without a normalization."""
    if normalization is None:
        return 0.0
    offset = -_float32(normalization.moving_mean, xp)
    if normalization.center:
        deviation = xp.sqrt(_float32(normalization.moving_variance, xp) + normalization.epsilon)
        shift = _float32(normalization.beta, xp) * deviation
        offset = offset + (shift / _float32(normalization.gamma, xp) if normalization.scale else shift)
    return offset


def _float32(x: Any, xp: Any) -> Any:
    """Returns a variable or tensor in float32: a NumPy array if `xp` is NumPy, a tensor otherwise."""
    return float32_array(x) if xp is np else ops.cast(x, "float32")
