"""Products of two activations: attention layers, and operations that multiply tensors as matrices."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.keras_classes import computes_like

#: Layers of attention: those with projections, and the one that multiplies its inputs.
PROJECTED_ATTENTION = frozenset({"GroupedQueryAttention", "MultiHeadAttention"})
ATTENTION = PROJECTED_ATTENTION | {"Attention"}
#: Layers and operations that multiply two tensors as matrices.
PRODUCTS = frozenset({"Dot", "Einsum", "Matmul"})


def attends(call: Call, classes: Iterable[str] = ATTENTION) -> bool:
    """Whether a layer is one of Keras' attention layers of these classes, with scores that are products."""
    return computes_like(call.operation, *classes) and getattr(call.operation, "score_mode", "dot") == "dot"


def multiplies_activations(call: Call, classes: Iterable[str] = PRODUCTS) -> bool:
    """Whether a call of a layer or operation of these classes multiplies two tensors, and not one and a constant."""
    if set(classes).isdisjoint(call.class_names):
        return False
    return len(call.operands) == 2 and all(keras.backend.is_float_dtype(x.dtype) for x in call.operands)
