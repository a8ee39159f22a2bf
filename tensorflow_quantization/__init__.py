"""Quantization for Keras 3: quantization-aware training, calibration, and ONNX files that runtimes run in integers."""

from tensorflow_quantization import utils
from tensorflow_quantization._version import __version__
from tensorflow_quantization.analysis import describe, runtime_report
from tensorflow_quantization.calibration import calibrate
from tensorflow_quantization.checks import check_onnx
from tensorflow_quantization.custom_qdq_cases import CustomQDQInsertionCase
from tensorflow_quantization.export import export_onnx
from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.quantize import quantize_model
from tensorflow_quantization.spec import LayerConfig, QuantizationSpec
from tensorflow_quantization.utils import (
    CreateAssetsFolders,
    convert_keras_model_to_onnx,
    convert_saved_model_to_onnx,
)
from tensorflow_quantization.wrappers import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
)

__all__ = [
    "BaseQuantizeWrapper",
    "CreateAssetsFolders",
    "CustomQDQInsertionCase",
    "LayerConfig",
    "NonWeightedBaseQuantizeWrapper",
    "QuantizationSpec",
    "WeightedBaseQuantizeWrapper",
    "__version__",
    "calibrate",
    "check_onnx",
    "convert_keras_model_to_onnx",
    "convert_saved_model_to_onnx",
    "describe",
    "export_litert",
    "export_onnx",
    "quantize_model",
    "runtime_report",
    "utils",
]

#: The integers of the default scheme, read each time `quantize_model` is called.
G_NUM_BITS = 8
G_NARROW_RANGE = True
G_SYMMETRIC = True
