"""Keras layers that are not exported, and why: read by the error message and by the page on coverage."""

from __future__ import annotations

from typing import Any

from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.keras_internals import is_of_backend

_STRINGS = "works on strings or hash tables, which runtimes for ONNX do not have; do this before the model"
_FOREIGN = "holds a function of another framework, which has no Keras operations to write"

#: Class name to a clause that follows the layer's name.
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
    """Why a layer of Keras, or one derived from it, is not exported; empty if nothing speaks against it."""
    for base in type(operation).__mro__:
        # On JAX, all layers of Keras have a base of the backend's that is called JaxLayer, too.
        if is_of_keras(base) and not is_of_backend(base) and base.__name__ in REFUSALS:
            return REFUSALS[base.__name__]
    return ""
