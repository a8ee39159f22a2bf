"""Keras layers that are not exported, and the reasons, for the error message and the page on coverage."""

from __future__ import annotations

from typing import Any

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
