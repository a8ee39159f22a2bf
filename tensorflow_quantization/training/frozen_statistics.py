"""`FreezeBatchNormalization`: a callback that stops the statistics of BatchNormalization from following the batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from tensorflow_quantization.training.student import normalizations, retrace, student_of


class FreezeBatchNormalization(keras.callbacks.Callback):
    """Freezes the statistics of each BatchNormalization from an epoch on, while its scale and shift go on training.

    The layers then compute with their moving statistics, as the exported file does (arXiv:1806.08342, section 3.2.2).
    They are as before after `fit`; if it was interrupted, after `release()`. Checkpoints in between hold layers that
    are not frozen.

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
        found = normalizations(student_of(self.model))
        self._frozen = [x for x in found if x.trainable and not _is_frozen(x)]  # another callback may freeze it, too
        for layer in self._frozen:
            layer.call = partial(_call_at_inference, layer.call)
        if self._frozen:
            retrace(self.model)

    def on_train_begin(self, logs=None):
        self._frozen = list(filter(_is_frozen, normalizations(student_of(self.model))))
        self.release()  # what a `fit` that was interrupted left

    def on_train_end(self, logs=None):
        self.release()

    def release(self) -> None:
        """Lets the statistics move again; `fit` calls it at its end, but not if it is interrupted."""
        for layer in self._frozen:
            del layer.call
        if self._frozen:
            retrace(self.model)  # the next `fit` must not use the step of this one
        self._frozen = []


def _call_at_inference(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a BatchNormalization as in inference. `trainable`, on which its statistics depend, too, would be saved."""
    return call(*args, **{**kwargs, "training": False})


def _is_frozen(layer: keras.layers.BatchNormalization) -> bool:
    call = vars(layer).get("call")
    return isinstance(call, partial) and call.func is _call_at_inference
