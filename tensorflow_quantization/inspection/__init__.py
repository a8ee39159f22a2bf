"""Look at a quantized model (`describe`), and at a file (`checks`, `runtime`)."""

from tensorflow_quantization.inspection.describe import LayerDescription, ModelDescription, describe

__all__ = ["LayerDescription", "ModelDescription", "describe"]
