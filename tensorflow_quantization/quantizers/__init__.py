"""The arithmetic of quantization: pure functions, and the Keras layers that apply them."""

from tensorflow_quantization.quantizers.activation import ActivationQuantizer
from tensorflow_quantization.quantizers.scheme import QuantizationScheme
from tensorflow_quantization.quantizers.weight import WeightQuantizer

__all__ = ["ActivationQuantizer", "QuantizationScheme", "WeightQuantizer"]
