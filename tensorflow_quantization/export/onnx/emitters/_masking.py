"""Masks as boolean tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.values import Value, keras_order

#: The score of masked elements in Keras' softmax.
MASKED_SCORE = -1e9


def unsqueeze(e: Emission, x: Any, axes: Sequence[int]) -> ir.Value:
    """`x` with additional axes of size 1."""
    return e.op("Unsqueeze", x, np.asarray(axes, np.int64))


def boolean(e: Emission, mask: Value) -> Value:
    """A mask of any dtype as booleans, in Keras' axis order."""
    return e.cast(e.arrange(mask, keras_order(mask.rank)), "bool")


def both(e: Emission, first: ir.Value | np.ndarray | None, second: ir.Value | np.ndarray | None):
    """The logical and of two masks; `None` is a mask that is true everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return e.op("And", first, second)


def positions(e: Emission, x: Value, axis: int) -> np.ndarray | ir.Value:
    """0, 1, 2, ... along an axis of `x`: a constant if its size is known."""
    size = x.shape[axis]
    if size is not None:
        return np.arange(size, dtype=np.int64)
    length = e.op("Gather", e.op("Shape", x), np.int64(x.position(axis)), axis=0)
    return e.op("Range", np.int64(0), length, np.int64(1))


def attention_window(e: Emission, query: Value, value: Value, causal: bool, width: int | None):
    """The mask (1, queries, values): false for values after a query if `causal`, and for `width` steps away or more."""
    rows, columns = positions(e, query, 1), positions(e, value, 1)
    if isinstance(rows, np.ndarray) and isinstance(columns, np.ndarray):
        distance = rows[None, :, None] - columns[None, None, :]
        mask = np.ones(distance.shape, np.bool_)
        if causal:
            mask &= distance >= 0
        return mask if width is None else mask & (np.abs(distance) < width)
    steps = e.op("Sub", unsqueeze(e, rows, [0, 2]), unsqueeze(e, columns, [0, 1]))
    dynamic = e.op("GreaterOrEqual", steps, np.int64(0)) if causal else None
    return dynamic if width is None else both(e, dynamic, e.op("Less", e.op("Abs", steps), np.int64(width)))
