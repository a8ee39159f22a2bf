"""`quantize_model`: what the user asks, what is decided, and how it is carried out."""

from tensorflow_quantization.quantize.pipeline import quantize_model
from tensorflow_quantization.quantize.spec import LayerConfig, QuantizationSpec

__all__ = ["LayerConfig", "QuantizationSpec", "quantize_model"]
