"""Keras layers that are not exported, and the reasons, for the error message and the page on coverage."""

from __future__ import annotations

from typing import Any

from tensorflow_quantization.export.errors import ExportError, Unsupported
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_classes import keras_class_names

_STRINGS = "works on strings or hash tables, which ONNX runtimes do not have; do this before the model"
_FOREIGN = "holds a function of another framework, which has no Keras operations to write"

#: From the class name to the reason, a clause that follows the layer's name.
REFUSALS: dict[str, str] = {
    "ContrastLimitedAdaptiveHistogramEqualization": "changes an image by its own histogram; do this before the model",
    "FlaxLayer": _FOREIGN,
    "HashedCrossing": _STRINGS,
    "Hashing": _STRINGS,
    "IntegerLookup": _STRINGS,
    "JaxLayer": _FOREIGN,
    "MaxNumBoundingBoxes": "works on bounding boxes of training data; do this before the model",
    "StringLookup": _STRINGS,
    "TFSMLayer": _FOREIGN,
    "TextVectorization": _STRINGS,
    "TorchModuleWrapper": _FOREIGN,
}


def refusal(operation: Any) -> str:
    """Why a Keras layer, or a subclass of it, is not exported; empty if there is no such reason."""
    return next((REFUSALS[name] for name in keras_class_names(type(operation)) if name in REFUSALS), "")


def check_numbers(graph: LayerGraph) -> None:
    """Checks that a flat graph computes with numbers, which can be calibrated and written to files of any runtime.

    Raises:
        ExportError: layers work on strings or hash tables; the message lists them as `export_onnx` does.
    """
    found = [Unsupported(c.path, c.class_name, _STRINGS) for c in graph.calls if refusal(c.operation) == _STRINGS]
    if found:
        rows = "\n".join(f"  {layer}" for layer in found)
        raise ExportError(f"These layers cannot be in a file:\n{rows}")
