"""Keras models to ONNX files.

`export_onnx` writes a file. `emitter` adds the ONNX form of a custom layer. The other names are what an emitter works
with and the errors that an export raises.
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
