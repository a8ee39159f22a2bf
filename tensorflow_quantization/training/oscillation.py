"""`QuantizationLogger`: a callback that logs the scales, and the share of weights that oscillate."""

from __future__ import annotations

import keras
import numpy as np

from tensorflow_quantization.calibration.calibrate import layer_paths
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.model.weights import merged_array
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.training.student import student_of, sync
from tensorflow_quantization.wrappers import wrappers_in

#: The momentum of the frequency of oscillations, and the frequency from which on a weight oscillates (2203.11086).
_MOMENTUM, _OSCILLATING = 0.01, 0.005


class QuantizationLogger(keras.callbacks.Callback):
    """Adds to the logs of each epoch the share of weights that oscillate, and the scale of each quantizer.

    An integer oscillates if it changes in the other direction than at its last change. A weight counts if the moving
    average of its oscillations, of momentum 0.01 for each batch, exceeds 0.005 (arXiv:2203.11086, section 3). The logs
    get "oscillating", a share of all quantized weights, and "scale/<path of the quantizer>", for a kernel the mean over
    its channels. Reading all integers costs time after each batch; with `steps_per_execution` of `compile`, changes
    within an execution are not seen.

    Examples:
        >>> quantized = quantize_model(model, weight_bits=4)
        >>> quantized.compile("adam", "mse")
        >>> history = quantized.fit(images, labels, callbacks=[QuantizationLogger()], verbose=0)
        >>> sorted(name for name in history.history if "conv" in name)
        ['scale/quant_conv/input_quantizer', 'scale/quant_conv/kernel_quantizer']

    Args:
        scales: bool; log the scales. Default `True`.
    """

    def __init__(self, scales: bool = True):
        super().__init__()
        self.scales = scales
        self._oscillations: dict[tuple[int, str], Oscillations] = {}

    def on_train_begin(self, logs=None):
        self._oscillations = {key: Oscillations(integers) for key, integers in self._integers().items()}

    def on_train_batch_end(self, batch, logs=None):
        sync(self.model)
        for key, integers in self._integers().items():
            self._oscillations[key].update(integers)

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        sync(self.model)
        oscillating = [o.frequency > _OSCILLATING for o in self._oscillations.values()]
        if oscillating:
            logs["oscillating"] = float(np.mean(np.concatenate([o.ravel() for o in oscillating])))
        if self.scales:
            logs.update((f"scale/{path}", scale) for path, scale in self._scales().items())

    def _integers(self) -> dict[tuple[int, str], np.ndarray]:
        return {
            (id(wrapper), name): quantizer.integers(merged_array(wrapper.layer, name))
            for wrapper in wrappers_in(student_of(self.model))
            for name, quantizer in wrapper.weight_quantizers.items()
        }

    def _scales(self) -> dict[str, float]:
        student = student_of(self.model)
        paths, weights = layer_paths(student), {}
        for wrapper in wrappers_in(student):
            for name, quantizer in wrapper.weight_quantizers.items():
                weights[id(quantizer)] = quantizer.parameters(merged_array(wrapper.layer, name))[0].mean()
        found = {}
        for layer in sublayers(student):
            if isinstance(layer, ActivationQuantizer):
                found[paths[id(layer)]] = float(layer.parameters()[0])
            elif id(layer) in weights:
                found[paths[id(layer)]] = float(weights[id(layer)])
        return found


class Oscillations:
    """How often integers change back, from batch to batch.

    Examples:
        >>> oscillations = Oscillations(np.array([0, 0]))
        >>> for integers in ([1, 1], [0, 2]):
        ...     oscillations.update(np.array(integers))
        >>> oscillations.frequency.tolist()
        [0.01, 0.0]

    Args:
        integers: the quantized weight before training.

    Attributes:
        frequency: float array, the moving average of whether an integer changed back in a batch.
    """

    def __init__(self, integers: np.ndarray):
        self._integers = integers.astype(np.int16)
        self._direction = np.zeros(integers.shape, np.int8)  # of the last change
        self.frequency = np.zeros(integers.shape)

    def update(self, integers: np.ndarray) -> None:
        """Adds the integers after a batch."""
        direction = np.sign(integers.astype(np.int16) - self._integers)
        back = direction * self._direction < 0
        self.frequency = _MOMENTUM * back + (1.0 - _MOMENTUM) * self.frequency
        self._direction = np.where(direction != 0, direction, self._direction)
        self._integers = integers.astype(np.int16)
