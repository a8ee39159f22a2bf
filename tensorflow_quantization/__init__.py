"""Quantization for Keras 3: quantization-aware training, calibration, and ONNX files that runtimes execute in integers."""

from importlib.metadata import PackageNotFoundError, version

from tensorflow_quantization.custom_qdq_cases import CustomQDQInsertionCase
from tensorflow_quantization.quantize import quantize_model
from tensorflow_quantization.spec import LayerConfig, QuantizationSpec
from tensorflow_quantization.wrappers import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
)

#: Defaults of `quantize_model`, read each time it is called.
G_NUM_BITS = 8
G_NARROW_RANGE = True
G_SYMMETRIC = True
