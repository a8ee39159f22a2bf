"""Keras models to ONNX files.

`export_onnx` is the way in, `emitter` the way to add a layer; the rest are the errors that it raises.
"""

from tensorflow_quantization.export.errors import (
    ExportError,
    NotExpressibleError,
    OpsetError,
    UnsupportedLayerError,
    VerificationError,
)
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.exporter import export_onnx
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

__all__ = [
    "Emission",
    "ExportError",
    "NotExpressibleError",
    "OpsetError",
    "UnsupportedLayerError",
    "Value",
    "VerificationError",
    "emitter",
    "export_onnx",
]
