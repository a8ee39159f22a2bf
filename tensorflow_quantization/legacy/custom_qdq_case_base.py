"""The base class of cases, under its old module path."""

from tensorflow_quantization.quantize.case import CustomQDQInsertionCase

__all__ = ["CustomQDQInsertionCase"]
