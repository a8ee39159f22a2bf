"""The base classes of wrappers, under their old module path."""

from tensorflow_quantization.wrappers import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
)

__all__ = ["BaseQuantizeWrapper", "NonWeightedBaseQuantizeWrapper", "WeightedBaseQuantizeWrapper"]
