"""What a part's error would be if it were mended in one way: by another range, more bits, rescaled channels, ...

Each remedy is tried and its effect at the network's output is measured, so no limit says what a fault is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.comparison.statistics import Range, Usage, by_channel
from tensorflow_quantization.model.activations import without_activation
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.interpreter import CallFunction
from tensorflow_quantization.model.keras_classes import keras_class_names
from tensorflow_quantization.model.weights import float32_array, merged_array, variable_of
from tensorflow_quantization.noise.output_noise import Variant
from tensorflow_quantization.noise.parts import (
    FloatTwin,
    Observers,
    Part,
)
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer, numerics
from tensorflow_quantization.quantizers.fake_quantize import rounded
from tensorflow_quantization.quantizers.observing import Observer
from tensorflow_quantization.quantizers.scheme import MAX_BITS
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, weight_quantizers_in, wrappers_in
from tensorflow_quantization.wrappers.channels import is_depthwise

AS_IS = "as it is"
#: Ways to mend an activation quantizer: the range of the data; with it, the most bits, or a range for each channel.
#: Ways to mend weights: those of the float model; with them, the most bits, or inputs whose channels have equal ranges;
#: or a bias that takes away the constant shift of each channel.
RANGE, BITS, CHANNELS, WEIGHTS, BIAS = "range", "bits", "channels", "weights", "bias"
#: The remedy that another one includes.
INCLUDES = {BITS: (RANGE, WEIGHTS), CHANNELS: (RANGE, WEIGHTS)}


def variant(part: Part, twin: FloatTwin) -> Variant:
    """Returns the float model with the error of one part."""
    if part.quantizer is not None:
        return _of_quantizer(part, part.quantizer, twin, None)
    return Variant(part.call.operation, lambda call, args, kwargs: _with_weights(call, args, kwargs, twin))


def remedies(part: Part, twin: FloatTwin, usage: Usage | None, inputs: Range | None) -> Iterator[tuple[str, Variant]]:
    """Yields the ways to mend a part, each with the float model that has the remaining error.

    Args:
        part: the part.
        twin: computes the rest in float.
        usage: what an activation quantizer gets; `None` for weights.
        inputs: the ranges of the channels that the operation reads.
    """
    if part.quantizer is not None:
        if part.quantizer.scheme.fixed is None and usage is not None:
            yield from _of_activation(part, part.quantizer, twin, usage)
        return
    restored = _differ_beyond_rounding(part.call.operation, twin)
    if restored:
        yield WEIGHTS, Variant(part.call.operation, _restored(twin, None))
    weights = weight_quantizers_in(part.call.operation)
    if any(q.scheme.bits < MAX_BITS for q in weights):
        finest = {q: WeightQuantizer(dataclasses.replace(q.scheme, bits=MAX_BITS)).call for q in weights}
        yield BITS, Variant(part.call.operation, _restored(twin, finest))
    observer = None if inputs is None else _equalized(part.call.operation, inputs)
    if observer is not None:
        yield CHANNELS, Variant(part.call.operation, _restored(twin, {weights[0]: observer}))
    if _has_bias(part.call):
        yield BIAS, Variant(part.call.operation, lambda call, args, kwargs: _unbiased(call, args, kwargs, twin))


def _of_quantizer(part: Part, quantizer: ActivationQuantizer, twin: FloatTwin, observer: Observer | None) -> Variant:
    active: Observers = {quantizer: observer}
    return Variant(
        part.call.operation, lambda call, args, kwargs: twin.with_quantizers(call.operation, args, kwargs, active)
    )


def _of_activation(
    part: Part, quantizer: ActivationQuantizer, twin: FloatTwin, usage: Usage
) -> Iterator[tuple[str, Variant]]:
    scheme, values = quantizer.scheme, usage.values
    if not values.low.size:
        return

    def rounding(low: Any, high: Any, scheme: Any) -> Observer:
        low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        scale, zero_point = numerics.scale_from_range(low, high, scheme, np)

        def observer(x: Any) -> Any:
            shape = [1] * len(x.shape)
            if scale.ndim and usage.axis is not None:
                shape[usage.axis] = -1
            return rounded(x, scale.reshape(shape), zero_point.reshape(shape), scheme)

        return observer

    low, high = values.low.min(), values.high.max()
    yield RANGE, _of_quantizer(part, quantizer, twin, rounding(low, high, scheme))
    if scheme.bits < MAX_BITS:
        finest = dataclasses.replace(scheme, bits=MAX_BITS)
        yield BITS, _of_quantizer(part, quantizer, twin, rounding(low, high, finest))
    if len(values.low) > 1:
        yield CHANNELS, _of_quantizer(part, quantizer, twin, rounding(values.low, values.high, scheme))


def _with_weights(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], twin: FloatTwin) -> Any:
    """Computes a call with its own weights, quantized, and with unquantized activations."""
    active = dict.fromkeys(weight_quantizers_in(call.operation))
    return twin.with_quantizers(call.operation, args, kwargs, active, own=True)


def _restored(twin: FloatTwin, observers: Observers | None) -> CallFunction:
    """Computes a call with the weights of the float model, quantized, and with its own biases."""

    def function(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        active = {**dict.fromkeys(weight_quantizers_in(call.operation)), **(observers or {})}
        with twin.weights_of_float(call.operation, without_biases=True):
            return twin.with_quantizers(call.operation, args, kwargs, active, own=True)

    return function


def _differ_beyond_rounding(operation: Any, twin: FloatTwin) -> bool:
    """Whether weights differ from the float model's by more than a choice of rounding, which is less than a step."""
    steps = {}
    for wrapper in wrappers_in(operation):
        for name, quantizer in wrapper.weight_quantizers.items():
            scale, _ = quantizer.parameters(merged_array(wrapper.layer, name))
            steps[id(variable_of(wrapper.layer, name))] = scale
    return any(
        bool((np.abs(float32_array(own) - float32_array(theirs)) > steps.get(id(own), 0.0)).any())
        for own, theirs in twin.changed(operation)
        if own.name != "bias"
    )


def _equalized(operation: Any, inputs: Range) -> Observer | None:
    """Rounds a kernel whose input channels are rescaled, so that all inputs have the same range (arXiv:1906.04721)."""
    if not isinstance(operation, BaseQuantizeWrapper) or len(operation.weight_quantizers) != 1:
        return None
    ((name, quantizer),) = operation.weight_quantizers.items()
    if is_depthwise(operation.layer):  # each input channel has a scale of its own
        return None
    shape = getattr(operation.layer, name).shape
    axis = -1 if any("Transpose" in n for n in keras_class_names(type(operation.layer))) else -2
    if len(shape) < 2 or shape[axis] != len(inputs.low):  # a group of a convolution reads a part of the channels
        return None
    magnitude = inputs.magnitude
    form = [1] * len(shape)
    form[axis] = -1
    usable = np.where(magnitude > 0, magnitude, magnitude.max() or 1.0)
    factors = ops.convert_to_tensor(usable.reshape(form), "float32")
    plain = WeightQuantizer(quantizer.scheme)  # without an observer
    return lambda weight: plain.call(weight * factors) / factors


def _has_bias(call: Call) -> bool:
    """Whether a call has a bias, or a normalization after it, that can take up a shift of its channels."""
    operation = call.operation
    if not isinstance(operation, BaseQuantizeWrapper) or not operation.weight_quantizers or len(call.outputs) != 1:
        return False
    return getattr(operation.layer, "bias", None) is not None or operation.normalization is not None


def _unbiased(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], twin: FloatTwin) -> Any:
    """Computes a call with its own weights, quantized, and with the mean of each channel as in the float model."""
    layer = call.operation.layer
    with without_activation(layer):
        exact = twin.compute(call, args, kwargs)
        got = _with_weights(call, args, kwargs, twin)
    error = float32_array(exact) - float32_array(got)
    bias = getattr(layer, "bias", None)
    if bias is None:
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
        shape = [1] * error.ndim
        shape[axis] = -1
        return got + ops.convert_to_tensor(by_channel(error, axis).mean(axis=0).reshape(shape), got.dtype)
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    if bias.shape != (error.shape[axis],):  # of an EinsumDense with several output axes
        shift = error.mean(axis=tuple(range(error.ndim - len(bias.shape)))).reshape(bias.shape)
    else:
        shift = by_channel(error, axis).mean(axis=0)
    with keras.StatelessScope([(bias, bias + ops.convert_to_tensor(shift, bias.dtype))]):
        return _with_weights(call, args, kwargs, twin)
