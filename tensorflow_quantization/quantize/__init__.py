"""`quantize_model`: reads the request, plans every layer, and builds the quantized model."""

from tensorflow_quantization.quantize.pipeline import quantize_model
from tensorflow_quantization.quantize.spec import LayerConfig, QuantizationSpec

__all__ = ["LayerConfig", "QuantizationSpec", "quantize_model"]
