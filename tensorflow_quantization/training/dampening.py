"""`Dampen`: a callback with a loss that keeps weights from oscillating between two integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.keras_internals import lora_variables
from tensorflow_quantization.model.weights import owner_of
from tensorflow_quantization.quantizers import WeightQuantizer, numerics
from tensorflow_quantization.training.student import retrace, student_of
from tensorflow_quantization.wrappers import wrappers_in


class Dampen(keras.callbacks.Callback):
    """Adds strength x sum((quantized - clipped weight)**2) to the loss, for each kernel (arXiv:2203.11086).

    The quantized weight gets no gradient: the loss pulls a weight away from the border between two integers, where it
    oscillates. It rises from epoch to epoch along a cosine to `strength`, so that weights move freely at first. It ends
    with `fit`.

    Examples:
        >>> quantized = quantize_model(model, weight_bits=4)
        >>> quantized.compile("adam", "mse")
        >>> history = quantized.fit(images, labels, callbacks=[Dampen(1e-3)], verbose=0)

    Args:
        strength: float, the factor of the loss in the last epoch.

    Raises:
        ValueError: `strength` is negative.
    """

    def __init__(self, strength: float):
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}.")
        self.strength = strength
        self._factor = keras.Variable(0.0, trainable=False, name="dampening")
        self._before: list[tuple[keras.Variable, Any]] = []

    def on_train_begin(self, logs=None):
        self.release()
        for wrapper in wrappers_in(student_of(self.model)):
            for name, quantizer in wrapper.weight_quantizers.items():
                owner, attribute = owner_of(wrapper.layer, name)
                if not lora_variables(owner, attribute):  # such a kernel is frozen
                    kernel = getattr(owner, attribute)
                    self._before.append((kernel, kernel.regularizer))
                    kernel.regularizer = partial(_regularized, quantizer, self._factor, kernel.regularizer)
        retrace(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        progress = (epoch + 1) / max(self.params["epochs"], epoch + 1)
        self._factor.assign(self.strength * (1.0 - math.cos(math.pi * progress)) / 2.0)
        if keras.backend.backend() == "jax":  # the factor is a constant in the compiled step
            retrace(self.model)

    def on_train_end(self, logs=None):
        self.release()
        retrace(self.model)  # the next `fit` must not use the step of this one

    def release(self) -> None:
        """Removes the loss; `fit` calls it at its end, but not if it is interrupted."""
        for kernel, regularizer in self._before:
            kernel.regularizer = regularizer
        self._before = []


def dampening_loss(weight: Any, quantizer: WeightQuantizer) -> Any:
    """Returns sum((quantized - clipped weight)**2), a float32 scalar; only the clipped weight has a gradient.

    Args:
        weight: float tensor of any shape.
        quantizer: the `WeightQuantizer` of the weight.
    """
    weight = ops.cast(weight, "float32")
    scale, scheme = ops.stop_gradient(quantizer.scale(weight)), quantizer.scheme
    zero_point = ops.zeros_like(scale)
    if not scheme.symmetric:  # without blocks: these are symmetric
        zero_point = numerics.scale_of_weight(weight, scheme)[1]
    clipped = ops.clip(weight, (scheme.qmin - zero_point) * scale, (scheme.qmax - zero_point) * scale)
    return ops.sum(ops.square(ops.stop_gradient(quantizer(weight)) - clipped))


def _regularized(
    quantizer: WeightQuantizer, factor: keras.Variable, own: Callable[[Any], Any] | None, weight: Any
) -> Any:
    loss = factor * dampening_loss(weight, quantizer)
    return loss if own is None else loss + own(weight)
