"""`WeightQuantizer`: fake-quantizes a weight with the range of the weight itself."""

from __future__ import annotations

import keras
import numpy as np

from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, float32
from tensorflow_quantization.quantizers.scheme import QuantizationScheme


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class WeightQuantizer(keras.layers.Layer):
    """Fake-quantizes a weight; the range is always the weight's own, so there is nothing to store or calibrate.

    Example:
        >>> quantizer = WeightQuantizer(QuantizationScheme(axis=-1))
        >>> quantizer.integers(np.array([[1.0, 0.1], [-0.5, 0.02]]))  # a column is an output channel
        array([[127, 127],
               [-64,  25]], dtype=int8)

    Args:
        scheme: the integers; its `axis` is the channel axis.
    """

    def __init__(self, scheme: QuantizationScheme, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.scheme = QuantizationScheme.from_config(scheme)
        self.built = True

    def call(self, weight):
        weight = float32(weight)
        low, high = numerics.weight_range(keras.ops.stop_gradient(weight), self.scheme)
        return fake_quantize(weight, *numerics.scale_from_range(low, high, self.scheme), self.scheme)

    def scale(self, weight):
        """The scale of a weight, a float32 tensor with size 1 on the axes that share one."""
        low, high = numerics.weight_range(float32(weight), self.scheme)
        return numerics.scale_from_range(low, high, self.scheme)[0]

    def parameters(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale (float32) and zero point (integer dtype of the scheme), with size 1 on the axes that share a scale."""
        low, high = numerics.weight_range(np.asarray(weight, np.float32), self.scheme, np)
        scale, zero_point = numerics.scale_from_range(low, high, self.scheme, np)
        return scale.astype(np.float32), zero_point.astype(self.scheme.dtype)

    def integers(self, weight: np.ndarray) -> np.ndarray:
        """The quantized weight, in the scheme's integer dtype."""
        scale, zero_point = self.parameters(weight)
        q = numerics.quantize(np.asarray(weight, np.float32), scale, zero_point, self.scheme, np)
        return q.astype(self.scheme.dtype)

    def dequantized(self, weight: np.ndarray) -> np.ndarray:
        """What the integers stand for (float32), as a runtime computes it from a file."""
        scale, zero_point = (np.float32(p) for p in self.parameters(weight))
        return numerics.dequantize(np.float32(self.integers(weight)), scale, zero_point)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "scheme": self.scheme.get_config()}
