"""Bits and float per layer: how sensitive each layer is, and a search for a budget of accuracy, bytes or latency."""

from tensorflow_quantization.mixed_precision.precision import FLOAT, Precision
from tensorflow_quantization.mixed_precision.search import search
from tensorflow_quantization.mixed_precision.search_result import BudgetError, Evaluation, Front, SearchResult
from tensorflow_quantization.mixed_precision.sensitivity import sensitivity
from tensorflow_quantization.mixed_precision.sensitivity_result import LayerSensitivity, Sensitivity

__all__ = [
    "FLOAT",
    "BudgetError",
    "Evaluation",
    "Front",
    "LayerSensitivity",
    "Precision",
    "SearchResult",
    "Sensitivity",
    "search",
    "sensitivity",
]
