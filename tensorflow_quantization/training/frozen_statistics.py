"""`FreezeBatchNormalization`: a callback that stops the statistics of BatchNormalization from following the batches."""

from __future__ import annotations

import keras

from tensorflow_quantization.training.student import normalizations, retrace, student_of


class FreezeBatchNormalization(keras.callbacks.Callback):
    """Freezes the statistics of each BatchNormalization from an epoch on, while its scale and shift go on training.

    The layers then compute with their moving statistics, as the exported file does (arXiv:1806.08342, section 3.2.2).
    They are as before after `fit`.

    Examples:
        >>> quantized = quantize_model(model)
        >>> quantized.compile("adam", "mse")
        >>> history = quantized.fit(images, labels, epochs=2, callbacks=[FreezeBatchNormalization(1)], verbose=0)

    Args:
        epoch: int, the first epoch with frozen statistics, counted from 0.
    """

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch = epoch
        self._frozen: list[keras.layers.BatchNormalization] = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch < self.epoch or self._frozen:
            return
        self._frozen = [layer for layer in normalizations(student_of(self.model)) if layer.trainable]
        for layer in self._frozen:
            _set_trainable(layer, False)
        if self._frozen:
            retrace(self.model)

    def on_train_end(self, logs=None):
        self.release()
        retrace(self.model)  # the next `fit` must not use the step of this one

    def release(self) -> None:
        """Lets the statistics move again; `fit` calls it at its end, but not if it is interrupted."""
        for layer in self._frozen:
            _set_trainable(layer, True)
        self._frozen = []


def _set_trainable(layer: keras.layers.BatchNormalization, value: bool) -> None:
    """Sets `trainable`, on which the statistics depend, but not that of the layer's scale and shift.

    The optimizer then has the same variables as before.
    """
    before = [(variable, variable.trainable) for variable in layer.variables]
    layer.trainable = value
    for variable, trainable in before:
        variable.trainable = trainable
