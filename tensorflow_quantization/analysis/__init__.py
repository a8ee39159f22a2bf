"""Look at a quantized model."""

from tensorflow_quantization.analysis.describe import LayerDescription, ModelDescription, describe
from tensorflow_quantization.analysis.runtime_report import NodeReport, RuntimeReport, runtime_report

__all__ = ["LayerDescription", "ModelDescription", "NodeReport", "RuntimeReport", "describe", "runtime_report"]
