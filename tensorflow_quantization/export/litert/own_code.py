"""Code of the user in a model for LiteRT: a Lambda or a custom layer, whose operators this package does not know."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import keras
from keras import tree

from tensorflow_quantization.export.litert.affine import inner_layer
from tensorflow_quantization.model.graph import Call, substitute
from tensorflow_quantization.model.interpreter import infer
from tensorflow_quantization.model.keras_classes import is_of_keras, is_of_package

#: Operations of TensorFlow whose output has the scale of their input in LiteRT.
_MOVES = frozenset(
    {"BroadcastTo", "DepthToSpace", "ExpandDims", "Gather", "GatherV2", "Identity", "Max", "MaxPool", "Min", "Pad"}
    | {"PadV2", "Reshape", "ReverseV2", "Roll", "Slice", "SpaceToDepth", "Split", "SplitV", "Squeeze", "StridedSlice"}
    | {"Tile", "Transpose", "Unpack"}
)
_known: WeakKeyDictionary[Call, bool] = WeakKeyDictionary()


def is_own_code(call: Call) -> bool:
    """Whether a layer computes what code of the user says, whose operators this package does not know."""
    layer = inner_layer(call.operation)
    known = is_of_keras(type(layer)) or is_of_package(type(layer))
    return call.is_layer and (isinstance(layer, keras.layers.Lambda) or not known)


def code_moves(call: Call) -> bool:
    """Whether code of the user only moves the values of its only input: TensorFlow traces it, once for a call."""
    if len(call.inputs) != 1 or not is_own_code(call):
        return False
    if call not in _known:
        _known[call] = _traced(call)
    return _known[call]


def _traced(call: Call) -> bool:
    import tensorflow as tf

    (tensor,) = call.inputs
    found: list[bool] = []

    def run(x: Any) -> None:
        args, kwargs = substitute((call.args, call.kwargs), lambda _: x)
        outputs = infer(inner_layer(call.operation), *args, **kwargs)
        found.append(all(_is_moved(y, x) for y in tree.flatten(outputs)))

    try:
        tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec(tensor.shape, tensor.dtype))
    except Exception:  # of the user's code: the export computes it once more, and names the layer
        return False
    return all(found)


def _is_moved(y: Any, x: Any) -> bool:
    """Whether every value of a symbolic tensor is a value of another, or zero."""
    while y.name != x.name:
        if y.op.type not in _MOVES:
            return False
        y = y.op.inputs[1 if y.op.type == "Split" else 0]
    return True
