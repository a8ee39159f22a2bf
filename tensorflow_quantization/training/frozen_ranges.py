"""`FreezeRanges`: a callback that stops activation ranges from following the batches."""

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
