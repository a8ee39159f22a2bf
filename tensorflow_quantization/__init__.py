"""Quantization for Keras 3: quantization-aware training, calibration, and export to files that run in integers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tensorflow_quantization import _command_line, legacy  # noqa: F401  (the former answers `--help`)
from tensorflow_quantization._version import __version__
from tensorflow_quantization.calibration import calibrate, load_calibration, merge_calibrations, save_calibration
from tensorflow_quantization.inspection import describe
from tensorflow_quantization.legacy import utils
from tensorflow_quantization.legacy.utils import (
    CreateAssetsFolders,
    convert_keras_model_to_onnx,
    convert_saved_model_to_onnx,
)
from tensorflow_quantization.quantize import LayerConfig, QuantizationSpec, quantize_model
from tensorflow_quantization.quantize.case import CustomQDQInsertionCase
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.wrappers import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
)

if TYPE_CHECKING:
    from tensorflow_quantization.accuracy import post_training_quantize
    from tensorflow_quantization.comparison import compare
    from tensorflow_quantization.export import export_onnx
    from tensorflow_quantization.export.litert import export_litert
    from tensorflow_quantization.inspection.checks import check_onnx
    from tensorflow_quantization.inspection.runtime import runtime_report
    from tensorflow_quantization.mixed_precision.search import search
    from tensorflow_quantization.mixed_precision.sensitivity import sensitivity
    from tensorflow_quantization.reporting import html_report
    from tensorflow_quantization.training import fine_tune

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
    "compare",
    "convert_keras_model_to_onnx",
    "convert_saved_model_to_onnx",
    "describe",
    "export_litert",
    "export_onnx",
    "fine_tune",
    "html_report",
    "legacy",
    "load_calibration",
    "merge_calibrations",
    "post_training_quantize",
    "quantize_model",
    "runtime_report",
    "save_calibration",
    "search",
    "sensitivity",
    "utils",
]

#: The integers of the default scheme. `quantize_model` reads them at each call, so a user may set them.
G_NUM_BITS = 8
G_NARROW_RANGE = True
G_SYMMETRIC = True

#: Names and the modules that define them. A module is imported at the first use of its name, because it loads the
#: ONNX libraries, which takes time.
_LAZY = {
    "check_onnx": "inspection.checks",
    "compare": "comparison",
    "export_litert": "export.litert",
    "export_onnx": "export",
    "fine_tune": "training",
    "html_report": "reporting",
    "post_training_quantize": "accuracy",
    "runtime_report": "inspection.runtime",
    "search": "mixed_precision",
    "sensitivity": "mixed_precision",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, __all__)}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
