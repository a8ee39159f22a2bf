"""A quantized model beside its float model, layer by layer, in Keras and in a runtime."""

from tensorflow_quantization.comparison.compare import compare
from tensorflow_quantization.comparison.findings import Finding, Kind
from tensorflow_quantization.comparison.result import Comparison, LayerComparison

__all__ = ["Comparison", "Finding", "Kind", "LayerComparison", "compare"]
