"""One file a runtime: which layers it wants quantized, and in which integers."""

from tensorflow_quantization.targets.default import DEFAULT
from tensorflow_quantization.targets.target import LayerRule, Target

__all__ = ["DEFAULT", "LayerRule", "Target"]
