"""Stops activation ranges from following the batches: `freeze_ranges`, and the callback `FreezeRanges`."""

from __future__ import annotations

import keras

from tensorflow_quantization.calibration.calibrate import activation_quantizers
from tensorflow_quantization.quantizers.activation import are_learned
from tensorflow_quantization.training.student import retrace, student_of


class FreezeRanges(keras.callbacks.Callback):
    """Freezes the activation ranges of a quantized model from an epoch on, so that the weights adapt to final ranges.

    A learned step goes on training. The ranges stay frozen after `fit`, as after `calibrate`.

    Examples:
        >>> quantized = quantize_model(model)
        >>> quantized.compile("adam", "mse")
        >>> history = quantized.fit(images, labels, epochs=2, callbacks=[FreezeRanges(1)], verbose=0)
        >>> quantized.get_layer("quant_conv").frozen
        True

    Args:
        epoch: int, the first epoch with frozen ranges, counted from 0.
    """

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        found = activation_quantizers(student_of(self.model))
        moving = [quantizer for quantizer in found if not quantizer.frozen and not are_learned(quantizer.ranges)]
        if epoch < self.epoch or not moving:
            return
        for quantizer in moving:
            quantizer.frozen = True
        retrace(self.model)


def freeze_ranges(quantized: keras.Model, frozen: bool = True) -> keras.Model:
    """Freezes all activation ranges of a quantized model, or lets them follow the batches of training again.

    A later `fit` of the model that is passed heeds it, without another `compile`; after `layer.frozen = ...` of a
    single layer, compile the model again, as Keras asks for after `layer.trainable = ...`. Learned steps train either
    way.

    Examples:
        >>> quantized = calibrate(quantize_model(model), images, verbose=0)
        >>> quantized.get_layer("quant_conv").frozen
        True
        >>> freeze_ranges(quantized, False).get_layer("quant_conv").frozen
        False

    Args:
        quantized: the result of `quantize_model`, or of `distill` if that is trained; changed in place, with the models
            nested in it.
        frozen: bool; `False` lets the ranges move. Default `True`.

    Returns:
        `quantized`.

    Raises:
        TypeError: `quantized` is no `keras.Model`.
        ValueError: nothing in it is quantized.
    """
    for quantizer in activation_quantizers(quantized):
        quantizer.frozen = frozen
    quantized.train_function = None  # one that was compiled before heeds what was frozen then
    return quantized
