"""Elementwise operations of `keras.ops`: arithmetic, comparisons, and functions of several operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.merging import binary, common_dtype, elementwise
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

#: Functions of one tensor, from the emission and the tensor, which is cast to the dtype of the result.
_FUNCTIONS: dict[str, Callable[[Emission, Value], Any]] = {
    "Fabs": lambda e, x: e.op("Abs", x),
    "Exp2": lambda e, x: e.op("Pow", 2.0, x),
    "Expm1": lambda e, x: e.op("Sub", e.op("Exp", x), 1.0),
    "Log1p": lambda e, x: e.op("Log", e.op("Add", x, 1.0)),
    "Log2": lambda e, x: e.op("Mul", e.op("Log", x), 1 / math.log(2)),
    "Log10": lambda e, x: e.op("Mul", e.op("Log", x), 1 / math.log(10)),
    "Erfc": lambda e, x: e.op("Sub", 1.0, e.op("Erf", x)),
    "Cbrt": lambda e, x: e.op("Mul", e.op("Sign", x), e.op("Pow", e.op("Abs", x), 1 / 3)),
    "Deg2rad": lambda e, x: e.op("Mul", x, math.pi / 180),
    "Rad2deg": lambda e, x: e.op("Mul", x, 180 / math.pi),
    "Arcsin": lambda e, x: e.op("Asin", x),
    "Arccos": lambda e, x: e.op("Acos", x),
    "Arctan": lambda e, x: e.op("Atan", x),
    "Arcsinh": lambda e, x: e.op("Asinh", x),
    "Arccosh": lambda e, x: e.op("Acosh", x),
    "Arctanh": lambda e, x: e.op("Atanh", x),
    "Tan": lambda e, x: e.op("Tan", x),
    "Sinh": lambda e, x: e.op("Sinh", x),
    "Cosh": lambda e, x: e.op("Cosh", x),
}
for _name, _function in _FUNCTIONS.items():

    @emitter(_name, layout="any")
    def _unary(e: Emission, operation, x: Value, function: Callable = _function) -> Value:
        return e.output(function(e, e.cast(x, e.outputs[0].dtype)), x)


@emitter("Trunc", layout="any")
def trunc(e: Emission, operation, x: Value) -> Value:
    if "float" not in x.dtype:
        return e.cast(x, e.outputs[0].dtype)
    return e.output(e.op("Mul", e.op("Sign", x), e.op("Floor", e.op("Abs", x))), x)


@emitter("Round", layout="any")
def round_(e: Emission, operation, x: Value) -> Value:
    if "float" not in x.dtype and operation.decimals >= 0:
        return e.cast(x, e.outputs[0].dtype)
    y = e.cast(x, "float32")
    factor = float(10.0**operation.decimals)
    if factor == 1:
        return e.output(e.op("Round", y), x)
    y = y.with_onnx(e.op("Div", e.op("Round", e.op("Mul", y, factor)), factor))
    return e.output(e.cast(y, e.outputs[0].dtype).onnx, x)


@emitter("Copy", "ConvertToTensor", layout="any")
def copy(e: Emission, operation, x: Value) -> Value:
    return e.cast(x, e.outputs[0].dtype)


@emitter("SaturateCast", layout="any")
def saturate_cast(e: Emission, operation, x: Value) -> Value:
    dtype = e.outputs[0].dtype
    if "int" not in dtype:
        return e.cast(x, dtype)
    limits = np.iinfo(dtype)
    if "float" in x.dtype:
        # The largest float32 that the integer dtype can hold.
        high = np.float32(limits.max)
        high = high if int(high) <= limits.max else np.nextafter(high, np.float32(0))
        clipped = e.op("Clip", x, np.float32(limits.min), high)
    else:
        own = np.iinfo(x.dtype)
        bounds = (max(own.min, limits.min), min(own.max, limits.max))
        clipped = e.op("Clip", x, *(np.asarray(b, x.dtype) for b in bounds))
    return e.cast(x.with_onnx(clipped), dtype)


# Arithmetic with two operands.


@emitter("FloorDivide", layout="any")
def floor_divide(e: Emission, operation, x1: Any, x2: Any) -> Value:
    dtype = e.outputs[0].dtype
    if "float" in dtype:
        return _with(binary(e, "Div", x1, x2), lambda y: e.op("Floor", y))
    # ONNX rounds integer quotients towards zero. Subtract the remainder first, so that the division is exact.
    return binary(e, "Div", binary(e, "Sub", x1, mod(e, operation, x1, x2)), x2)


@emitter("Mod", layout="any")
def mod(e: Emission, operation, x1: Any, x2: Any) -> Value:
    dtype = e.outputs[0].dtype
    if "float" not in dtype:
        return binary(e, "Mod", x1, x2)
    quotient = _with(binary(e, "Div", x1, x2), lambda y: e.op("Floor", y))
    return binary(e, "Sub", x1, binary(e, "Mul", quotient, x2))


@emitter("Fmod", layout="any")
def fmod(e: Emission, operation, x1: Any, x2: Any) -> Value:
    quotient = binary(e, "Div", x1, x2)
    if "float" in e.outputs[0].dtype:
        quotient = trunc(e, operation, quotient)
    return binary(e, "Sub", x1, binary(e, "Mul", quotient, x2))


@emitter("DivideNoNan", layout="any")
def divide_no_nan(e: Emission, operation, x1: Any, x2: Any) -> Value:
    dtype = e.outputs[0].dtype
    if not isinstance(x2, Value):
        divisor = np.asarray(x2, np.float32)
        return binary(e, "Div", x1, np.where(divisor == 0, np.float32(np.inf), divisor))
    zero = elementwise(e, "Equal", [x2, 0.0], [dtype, dtype], "bool")
    quotient = binary(e, "Div", x1, elementwise(e, "Where", [zero, 1.0, x2], [None, dtype, dtype], dtype))
    return elementwise(e, "Where", [zero, 0.0, quotient], [None, dtype, dtype])


@emitter("Arctan2", keras.ops.arctan2, layout="any")
def arctan2(e: Emission, operation, x1: Any, x2: Any) -> Value:
    dtype = e.outputs[0].dtype
    y, x = (e.cast(v, dtype) if isinstance(v, Value) else e.value(v, dtype) for v in (x1, x2))
    angle = _with(binary(e, "Div", y, x), lambda v: e.op("Atan", v))
    half_turn = y.with_onnx(e.op("Where", e.op("Less", y, 0.0), -math.pi, math.pi))
    behind = binary(e, "Add", angle, half_turn)
    upright = y.with_onnx(e.op("Mul", e.op("Sign", y), math.pi / 2))
    negative, zero = (Value(e.op(t, x, 0.0), x.shape, "bool", x.order, x.flattened) for t in ("Less", "Equal"))
    y = elementwise(e, "Where", [negative, behind, angle], [None, dtype, dtype])
    return elementwise(e, "Where", [zero, upright, y], [None, dtype, dtype])


@emitter("Hypot", layout="any")
def hypot(e: Emission, operation, x1: Any, x2: Any) -> Value:
    first, second = [binary(e, "Mul", v, v) if isinstance(v, Value) else np.square(np.asarray(v)) for v in (x1, x2)]
    return _with(binary(e, "Add", first, second), lambda y: e.op("Sqrt", y))


@emitter("Logaddexp", layout="any")
def log_add_exp(e: Emission, operation, x1: Any, x2: Any) -> Value:
    difference = _with(binary(e, "Sub", x1, x2), lambda y: e.op("Neg", e.op("Abs", y)))
    rest = _with(difference, lambda y: e.op("Log", e.op("Add", e.op("Exp", y), 1.0)))
    return binary(e, "Add", binary(e, "Max", x1, x2), rest)


def _with(x: Value, function: Callable[[Value], ir.Value]) -> Value:
    return x.with_onnx(function(x))


# Comparisons and selections.


@emitter("NotEqual", layout="any")
def not_equal(e: Emission, operation, x1: Any, x2: Any) -> Value:
    return _with(binary(e, "Equal", x1, x2, common_dtype(x1, x2)), lambda y: e.op("Not", y))


@emitter("Where", layout="any")
def where(e: Emission, operation, condition: Any, x1: Any, x2: Any) -> Value:
    dtype = e.outputs[0].dtype
    # Runtimes have no Where kernel for booleans.
    working = "int32" if dtype == "bool" else dtype
    y = elementwise(e, "Where", [condition, x1, x2], ["bool", working, working], working)
    return e.output(e.cast(y, dtype).onnx, y)


@emitter("Isclose", layout="any")
def is_close(e: Emission, operation, x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Value:
    f = "float32"
    distance = _with(elementwise(e, "Sub", [x1, x2], [f, f], f), lambda y: e.op("Abs", y))
    size: Any = np.abs(np.asarray(x2, f)) * f32(rtol) + f32(atol) if not isinstance(x2, Value) else None
    if size is None:
        x2 = e.cast(x2, f)
        size = x2.with_onnx(e.op("Add", e.op("Mul", e.op("Abs", x2), float(rtol)), float(atol)))
    return elementwise(e, "LessOrEqual", [distance, size], [f, f])


def f32(x: float) -> np.float32:
    """A Python number as the float32 that Keras computes with."""
    return np.float32(x)


def _is_infinite(e: Emission, x: Value, signs: Sequence[int]) -> ir.Value:
    return e.op("IsInf", x, detect_positive=int(1 in signs), detect_negative=int(-1 in signs))


@emitter("Isnan", layout="any")
def is_nan(e: Emission, operation, x: Value) -> Value:
    return e.output(e.op("IsNaN", e.cast(x, "float32")), x)


for _name, _signs in {"Isinf": (1, -1), "Isposinf": (1,), "Isneginf": (-1,)}.items():

    @emitter(_name, layout="any")
    def _infinite(e: Emission, operation, x: Value, signs: Sequence[int] = _signs) -> Value:
        return e.output(_is_infinite(e, e.cast(x, "float32"), signs), x)


@emitter("Isfinite", layout="any")
def is_finite(e: Emission, operation, x: Value) -> Value:
    floats = e.cast(x, "float32")
    return e.output(e.op("Not", e.op("Or", e.op("IsNaN", floats), _is_infinite(e, floats, (1, -1)))), x)


@emitter("NanToNum", layout="any")
def nan_to_num(e: Emission, operation, x: Value) -> Value:
    if "float" not in x.dtype:
        return x
    limits = np.finfo(np.float32)
    y: Any = e.op("Where", e.op("IsNaN", x), f32(operation.nan), x)
    for sign, given, limit in ((1, operation.posinf, limits.max), (-1, operation.neginf, limits.min)):
        y = e.op("Where", _is_infinite(e, x, (sign,)), f32(float(limit) if given is None else given), y)
    return e.output(y, x)


@emitter("Heaviside", layout="any")
def heaviside(e: Emission, operation, x1: Any, x2: Any) -> Value:
    f = e.outputs[0].dtype
    x = e.cast(x1, f) if isinstance(x1, Value) else e.value(x1, f)
    positive = x.with_onnx(
        e.op("Cast", e.op("Greater", x, np.zeros((), f)), to=ir.DataType.from_numpy(np.dtype(f)).value)
    )
    zero = Value(e.op("Equal", x, np.zeros((), f)), x.shape, "bool", x.order, x.flattened)
    return elementwise(e, "Where", [zero, x2, positive], [None, f, f])


# Tensors with the shape of another tensor.

for _name, _fill in {"ZerosLike": 0, "OnesLike": 1, "EmptyLike": 0}.items():

    @emitter(_name, layout="any")
    def _filled(e: Emission, operation, x: Value, fill: int = _fill, **kwargs: Any) -> Value:
        return full_like(e, operation, x, fill)


@emitter("FullLike", layout="any")
def full_like(e: Emission, operation, x: Value, fill_value: Any) -> Value:
    dtype = e.outputs[0].dtype
    if isinstance(fill_value, Value) or np.ndim(fill_value):
        fill_value = e.arrange(e.value(fill_value, dtype))
        x = e.arrange(x)
    else:
        fill_value = e.value(fill_value, dtype)
    return e.output(e.op("Expand", fill_value, e.op("Shape", x)), x)
