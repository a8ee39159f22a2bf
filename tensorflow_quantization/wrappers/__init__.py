"""The Keras wrapper layers that apply quantizers to a layer's inputs, weights and output."""

from tensorflow_quantization.wrappers import layers
from tensorflow_quantization.wrappers.base import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
    activation_quantizers,
    find_wrapper,
)

__all__ = [
    "BaseQuantizeWrapper",
    "NonWeightedBaseQuantizeWrapper",
    "WeightedBaseQuantizeWrapper",
    "activation_quantizers",
    "find_wrapper",
    "layers",
]
