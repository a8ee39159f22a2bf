"""The Keras wrapper layers that apply quantizers to a layer's inputs, weights and output."""

from tensorflow_quantization.wrappers import attention, layers
from tensorflow_quantization.wrappers.base import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
    activation_quantizers,
    find_wrapper,
    inner_layer,
    wrappers_in,
)

__all__ = [
    "BaseQuantizeWrapper",
    "NonWeightedBaseQuantizeWrapper",
    "WeightedBaseQuantizeWrapper",
    "activation_quantizers",
    "attention",
    "find_wrapper",
    "inner_layer",
    "layers",
    "wrappers_in",
]
