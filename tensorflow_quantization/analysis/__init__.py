"""Look at a quantized model."""

from tensorflow_quantization.analysis.describe import LayerDescription, ModelDescription, describe

__all__ = ["LayerDescription", "ModelDescription", "describe"]
