"""Keras wrapper layers that quantize the inputs, the weights and the output of a layer."""

from tensorflow_quantization.wrappers import attention, layers, recurrent
from tensorflow_quantization.wrappers.base import BaseQuantizeWrapper, float_name, float_path, quantized_name
from tensorflow_quantization.wrappers.non_weighted import NonWeightedBaseQuantizeWrapper
from tensorflow_quantization.wrappers.queries import (
    activation_quantizers,
    activation_quantizers_in,
    find_wrapper,
    inner_layer,
    output_quantizer,
    weight_quantizers_in,
    wrappers_in,
)
from tensorflow_quantization.wrappers.weighted import WeightedBaseQuantizeWrapper

__all__ = [
    "BaseQuantizeWrapper",
    "NonWeightedBaseQuantizeWrapper",
    "WeightedBaseQuantizeWrapper",
    "activation_quantizers",
    "activation_quantizers_in",
    "attention",
    "find_wrapper",
    "float_name",
    "float_path",
    "inner_layer",
    "layers",
    "output_quantizer",
    "quantized_name",
    "recurrent",
    "weight_quantizers_in",
    "wrappers_in",
]
