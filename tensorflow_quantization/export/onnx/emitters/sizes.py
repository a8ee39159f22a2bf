"""Sizes that are known only at run time, see `model.sizes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.sizes import Positions, Size, Sized


@emitter(Size, layout="any")
def size(e: Emission, operation: Size, x: Value) -> Value:
    x = x if x.flattened is None else e.arrange(x)
    formula = operation.formula
    shape = e.op("Shape", x)
    y, *others = [e.op("Gather", shape, np.int64(x.position(axis)), axis=0) for axis in formula.axes]
    for other in others:
        y = e.op("Mul", y, other)
    if formula.factor != 1:
        y = e.op("Mul", y, np.int64(formula.factor))
    if formula.offset:
        y = e.op("Add", y, np.int64(formula.offset))
    if formula.divisor != 1:
        y = e.op("Div", y, np.int64(formula.divisor))
    if formula.modulo:
        y = e.op("Mod", y, np.int64(formula.modulo))
    result = Value(y, (), "int64")
    return result if operation.dtype is None else e.cast(result, operation.dtype)


@emitter(Positions)
def positions(e: Emission, operation: Positions, count: Value) -> Value:
    y = e.op("Range", np.int64(0), e.cast(count, "int64"), np.int64(1))
    return e.cast(Value(y, e.outputs[0].shape, "int64"), operation.dtype)


@emitter(Sized, layout=lambda operation, values: None)
def sized(e: Emission, operation: Sized, sizes: Sequence[Value], *args: Any) -> Value | list[Value]:
    inner, filled = operation.with_sizes(sizes, args)
    return e.emit(inner, *filled, outputs=e.outputs)
