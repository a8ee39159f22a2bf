"""Operations of `keras.ops` on one tensor, matrix products and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

for _op_type, _names in {
    "Abs": ("Absolute", "Abs"),
    "Neg": ("Negative",),
    "Sqrt": ("Sqrt",),
    "Log": ("Log",),
    "Erf": ("Erf",),
    "Sin": ("Sin",),
    "Cos": ("Cos",),
    "Floor": ("Floor",),
    "Ceil": ("Ceil",),
    "Sign": ("Sign",),
    "Reciprocal": ("Reciprocal",),
}.items():

    @emitter(*_names, layout="any")
    def _unary(e: Emission, operation, x: Value, op_type: str = _op_type) -> Value:
        return e.output(e.op(op_type, e.cast(x, e.outputs[0].dtype)), x)


@emitter("Square", layout="any")
def square(e: Emission, operation, x: Value) -> Value:
    x = e.cast(x, e.outputs[0].dtype)
    return e.output(e.op("Mul", x, x), x)


@emitter("Rsqrt", layout="any")
def rsqrt(e: Emission, operation, x: Value) -> Value:
    x = e.cast(x, e.outputs[0].dtype)
    return e.output(e.op("Reciprocal", e.op("Sqrt", x)), x)


@emitter("Clip", layout="any")
def clip(e: Emission, operation, x: Value) -> Value:
    x = e.cast(x, e.outputs[0].dtype)
    return e.output(e.op("Clip", x, *(e.constant(v, x) for v in (operation.x_min, operation.x_max))), x)


@emitter("Cast", layout="any")
def cast(e: Emission, operation, x: Value) -> Value:
    return e.cast(x, e.outputs[0].dtype)


@emitter("Matmul")
def matmul(e: Emission, operation, x1: Any, x2: Any) -> Value:
    dtype = e.outputs[0].dtype
    return e.output(e.op("MatMul", e.value(x1, dtype), e.value(x2, dtype)))


def stored_axes(x: Value, axis: Any) -> list[int]:
    """The axes of the stored tensor, in order, for Keras' `axis`: one axis, several, or all (`None`)."""
    if axis is not None and np.size(axis) == 0:  # ONNX takes no axes for all
        raise NotExpressibleError("reduces over no axis: axis is empty")
    return sorted({x.position(a) for a in (range(x.rank) if axis is None else np.atleast_1d(axis).tolist())})


def reduce(e: Emission, op_type: str, x: Value, axis: Any, keepdims: bool) -> Value:
    """Append a reduction over Keras' `axis`: one axis, several, or all (`None`). Other axes keep their order."""
    x = x if x.flattened is None else e.arrange(x)
    stored = stored_axes(x, axis)
    keep = 1 if keepdims else 0
    if op_type == "ReduceMean" and x.rank > 2 and stored == list(range(2, x.rank)) and x.order[0] == 0:
        y = e.op("GlobalAveragePool", x)  # runtimes have an integer kernel for this operator
        y = y if keepdims else e.reshape(y, [0, -1])
    elif op_type == "ReduceSum":
        y = e.op(op_type, x, np.asarray(stored, np.int64), keepdims=keep)
    else:
        y = e.op(op_type, x, axes=stored, keepdims=keep)
    if keepdims:
        return e.output(y, x)
    left = [a for position, a in enumerate(x.order) if position not in stored]
    order = tuple(sorted(left).index(a) for a in left)
    return Value(y, tuple(e.outputs[0].shape), e.outputs[0].dtype, order)


for _op_type, _name in {"ReduceMean": "Mean", "ReduceSum": "Sum", "ReduceMax": "Max", "ReduceMin": "Min"}.items():

    @emitter(_name, layout="any")
    def _reduction(e: Emission, operation, x: Value, op_type: str = _op_type) -> Value:
        if getattr(operation, "initial", None) is not None:
            raise NotExpressibleError("has an initial value")
        return reduce(e, op_type, e.cast(x, e.outputs[0].dtype), operation.axis, operation.keepdims)
