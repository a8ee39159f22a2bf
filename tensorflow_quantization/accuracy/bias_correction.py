"""`correct_biases`: shifts each bias so that the mean of its channel is as in the float model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tensorflow_quantization.accuracy.kernels import check_quantized
from tensorflow_quantization.accuracy.layer_by_layer import Step, layer_by_layer
from tensorflow_quantization.model.activations import without_activation
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.interpreter import Arguments, infer
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers.observing import observing, unquantized
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.bias import following_normalization


def correct_biases(model: keras.Model, quantized: keras.Model, data: Any) -> keras.Model:
    """Shifts each bias so that the mean of its channel over the data is as in the float model.

    Layer by layer from the inputs on, each with the layers before it quantized and corrected (arXiv:1906.04721,
    section 4.2). The shift goes into the bias, or, without one, into the moving mean of the BatchNormalization that is
    folded into the layer.

    Args:
        model: the float model.
        quantized: the result of `quantize_model` of it, calibrated; changed in place.
        data: the calibration set as `calibrate` takes it. All samples are in memory at once: a few hundred are enough.

    Returns:
        `quantized`. A layer with neither a bias nor a folded BatchNormalization, or one that is called several times,
        is unchanged.

    Raises:
        TypeError: `model` or `quantized` is no `keras.Model`.
        ValueError: `quantized` has no quantized kernels, is not calibrated, or was not made from `model`; the data does
            not fit its inputs, or a tensor is NaN or infinite. The model is as before then.

    Examples:
        >>> quantized = quantize_model(model)
        >>> quantized = calibrate(quantized, images, verbose=0)
        >>> quantized = correct_biases(model, quantized, images)
    """
    check_quantized(quantized, calibrated=True)
    layer_by_layer(quantized, data, [BiasCorrection()], model)
    return quantized


class BiasCorrection:
    """The method of `correct_biases` for one layer at a time, see `layer_by_layer`."""

    def improve(self, step: Step) -> None:
        wrapper = step.call.operation
        if step.reference is None or (not wrapper.weight_quantizers and not wrapper.parts):
            return
        holder = wrapper.parts.get("output", wrapper)
        bias = getattr(holder.layer, "bias", None)
        normalization = following_normalization(wrapper) if bias is None else None
        if bias is None and normalization is None:
            return
        axes = _channel_axes(holder, step.call, normalization)
        if axes is None:
            return
        expected = _mean(step.reference.operation, step.reference_arguments, axes)
        output = wrapper.output_quantizer
        with observing({} if output is None else {output: unquantized}):
            got = _mean(wrapper, step.arguments, axes)
        shift = expected - got
        if not np.isfinite(shift).all():
            raise ValueError(
                f"The outputs of {step.call.path!r} are NaN or infinite. Check the data, and the weights of the layers "
                "before it."
            )
        if bias is not None:
            bias.assign(float32_array(bias) + shift.reshape(bias.shape))
        elif normalization is not None and (partner := step.partners.of_layer(normalization)) is not None:
            # It subtracts its mean later: an earlier correction is not in the output that was measured.
            mean = partner.moving_mean
            normalization.moving_mean.assign(float32_array(mean) - shift.reshape(mean.shape))


def _channel_axes(holder: BaseQuantizeWrapper, call: Call, normalization: Any) -> tuple[int, ...] | None:
    """Returns the axes of the output that the bias has, counted from the end.

    The output of the float layer may have an axis more: of `TimeDistributed`, whose steps the copy has in the batch.
    """
    rank = len(call.outputs[0].shape)
    if normalization is not None:
        return (normalization.axis % rank - rank,)
    layer = holder.layer
    if isinstance(layer, keras.layers.EinsumDense):
        kept = [i - len(layer.bias.shape) for i, size in enumerate(layer.bias.shape) if size != 1]
        return tuple(kept)
    return (1 - rank,) if getattr(layer, "data_format", None) == "channels_first" else (-1,)


def _mean(layer: keras.layers.Layer, arguments: list[Arguments], axes: tuple[int, ...]) -> np.ndarray:
    """Returns the mean of a layer's output before its activation, over all axes but `axes`."""
    total, count = np.zeros(()), 0
    with without_activation(getattr(layer, "layer", layer)):
        for args, kwargs in arguments:
            outputs = infer(layer, *args, **kwargs)
            y = float32_array(outputs[0] if isinstance(outputs, tuple | list) else outputs)
            others = tuple(a for a in range(-y.ndim, 0) if a not in axes)
            total = total + y.sum(axis=others, dtype=np.float64)
            count += int(np.prod([y.shape[a] for a in others]))
    return total / count
