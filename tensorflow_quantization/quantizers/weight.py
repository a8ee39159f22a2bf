"""`WeightQuantizer`: fake-quantizes a weight; the range is computed from the weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, float32
from tensorflow_quantization.quantizers.scheme import QuantizationScheme


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class WeightQuantizer(keras.layers.Layer):
    """Fake-quantizes a weight: rounds it to the integers of `scheme` and returns float32 of the same shape.

    The range is the least and the greatest value of the weight, per-channel if the scheme has an axis. It is computed
    in each call, so there is nothing to store or calibrate.

    Examples:
        >>> quantizer = WeightQuantizer(QuantizationScheme(axis=-1))
        >>> quantizer.integers(np.array([[1.0, 0.1], [-0.5, 0.02]]))  # a column is an output channel
        array([[127, 127],
               [-64,  25]], dtype=int8)

    Args:
        scheme: `QuantizationScheme`, or its config; `axis` names the channel axes, `None` is per-tensor.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, scheme: QuantizationScheme, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.scheme = QuantizationScheme.from_config(scheme)
        # Replaces quantization if set, as in an `ActivationQuantizer`: gets the weight and returns the output.
        self.observer: Callable[[Any], Any] | None = None
        self.built = True

    def call(self, weight):
        if self.observer is not None:
            return self.observer(weight)
        weight = float32(weight)
        low, high = numerics.weight_range(keras.ops.stop_gradient(weight), self.scheme)
        return fake_quantize(weight, *numerics.scale_from_range(low, high, self.scheme), self.scheme)

    def scale(self, weight):
        """Returns the scale of a weight.

        Args:
            weight: float tensor or variable of any shape.

        Returns:
            A float32 tensor in the rank of `weight`; every axis that shares a scale has size 1.
        """
        low, high = numerics.weight_range(float32(weight), self.scheme)
        return numerics.scale_from_range(low, high, self.scheme)[0]

    def parameters(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scale and the zero point of a weight, as the export writes them.

        Args:
            weight: float array of any shape.

        Returns:
            (scale, zero point): float32, and the dtype of the scheme. Both have the rank of `weight`; every axis that
            shares a scale has size 1.
        """
        low, high = numerics.weight_range(np.asarray(weight, np.float32), self.scheme, np)
        scale, zero_point = numerics.scale_from_range(low, high, self.scheme, np)
        return scale.astype(np.float32), zero_point.astype(self.scheme.dtype)

    def integers(self, weight: np.ndarray) -> np.ndarray:
        """Returns the quantized weight.

        Args:
            weight: float array of any shape.

        Returns:
            Integers in the shape of `weight` and the dtype of the scheme.
        """
        scale, zero_point = self.parameters(weight)
        q = numerics.quantize(np.asarray(weight, np.float32), scale, zero_point, self.scheme, np)
        return q.astype(self.scheme.dtype)

    def dequantized(self, weight: np.ndarray) -> np.ndarray:
        """Returns the real values of the quantized weight, as a runtime computes them from the file.

        Args:
            weight: float array of any shape.

        Returns:
            float32 in the shape of `weight`.
        """
        scale, zero_point = (np.float32(p) for p in self.parameters(weight))
        return numerics.dequantize(np.float32(self.integers(weight)), scale, zero_point)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "scheme": self.scheme.get_config()}
