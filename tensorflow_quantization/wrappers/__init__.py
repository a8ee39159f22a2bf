"""Keras wrapper layers that quantize the inputs, the weights and the output of a layer."""

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
