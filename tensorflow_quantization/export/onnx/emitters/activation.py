"""Activations: layers, operations of `keras.ops`, and functions of the argument `activation`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masking import MASKED_SCORE, boolean
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

_a = keras.activations
_o = keras.ops


def _register(function: Callable[[Emission, Value], ir.Value | Value], *keys) -> None:
    emitter(*keys, layout="any")(lambda e, operation, x: function(e, x))


#: Activations that ONNX has as one operator.
_OPERATORS: dict[str, tuple[Any, ...]] = {
    "Sigmoid": ("Sigmoid", _a.sigmoid, _o.sigmoid),
    "Tanh": ("Tanh", _a.tanh, _o.tanh),
    "Softplus": ("Softplus", _a.softplus, _o.softplus),
    "Softsign": ("Softsign", _a.softsign, _o.softsign),
    "Selu": ("Selu", _a.selu, _o.selu),
    "Exp": ("Exp", _a.exponential, _o.exp),
}
for _op_type, _keys in _OPERATORS.items():

    @emitter(*_keys, layout="any")
    def _operator(e: Emission, operation, x: Value, op_type: str = _op_type) -> ir.Value:
        return e.op(op_type, x)


_register(lambda e, x: x, _a.linear)
_register(lambda e, x: e.op("Clip", x, 0.0, 6.0), "Relu6", _a.relu6, _o.relu6)
_register(lambda e, x: e.op("Clip", x, -1.0, 1.0), "HardTanh", _a.hard_tanh, _o.hard_tanh)
# Not Swish (opset 24): ONNX Runtime fuses Mul and Sigmoid into a kernel, and has no kernel for Swish.
_register(lambda e, x: e.op("Mul", x, e.op("Sigmoid", x)), "Silu", _a.silu, _o.silu)
_register(lambda e, x: e.op("Sub", x, e.op("Tanh", x)), "TanhShrink", _a.tanh_shrink, _o.tanh_shrink)
_register(lambda e, x: e.op("Neg", e.op("Softplus", e.op("Neg", x))), "LogSigmoid", _a.log_sigmoid, _o.log_sigmoid)
_register(
    lambda e, x: e.op("Clip", e.op("Add", e.op("Mul", x, 0.5), 0.5), 0.0, 1.0),
    *("SparseSigmoid", _a.sparse_sigmoid, _o.sparse_sigmoid),
)


@emitter("Mish", _a.mish, layout="any")
def mish(e: Emission, operation, x: Value) -> ir.Value:
    if e.supports(18):
        return e.op("Mish", x, since=18)
    return e.op("Mul", x, e.op("Tanh", e.op("Softplus", x)))


@emitter("HardSigmoid", _a.hard_sigmoid, _o.hard_sigmoid, layout="any")
def hard_sigmoid(e: Emission, operation, x: Value) -> ir.Value:
    return e.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@emitter("HardSilu", _a.hard_silu, _o.hard_silu, layout="any")
def hard_swish(e: Emission, operation, x: Value) -> ir.Value:
    if e.supports(14):
        return e.op("HardSwish", x, since=14)
    return e.op("Mul", x, hard_sigmoid(e, operation, x))


@emitter("Gelu", _a.gelu, _o.gelu, layout="any")
def gelu(e: Emission, operation, x: Value) -> ir.Value:
    # keras.ops.gelu and keras.activations.gelu have different defaults.
    approximate = getattr(operation, "approximate", operation is _o.gelu)
    if e.supports(20):
        return e.op("Gelu", x, since=20, approximate="tanh" if approximate else "none")
    if approximate:
        cubed = e.op("Mul", e.op("Mul", x, e.op("Mul", x, x)), 0.044715)
        inner = e.op("Tanh", e.op("Mul", e.op("Add", x, cubed), math.sqrt(2 / math.pi)))
    else:
        inner = e.op("Erf", e.op("Div", x, math.sqrt(2)))
    # Runtimes recognize GELU only with the operands in this order.
    return e.op("Mul", e.op("Mul", x, e.op("Add", inner, 1.0)), 0.5)


@emitter("ReLU", "Relu", _a.relu, _o.relu, layout="any")
def relu(e: Emission, operation, x: Value) -> ir.Value:
    slope = float(getattr(operation, "negative_slope", 0.0) or 0.0)
    threshold = float(getattr(operation, "threshold", 0.0) or 0.0)
    max_value: Any = getattr(operation, "max_value", None)
    if not threshold and max_value is None:
        return e.op("LeakyRelu", x, alpha=slope) if slope else e.op("Relu", x)
    if threshold:
        y = e.op("Where", e.op("Greater", x, threshold), x, 0.0)
        y = y if max_value is None else e.op("Clip", y, 0.0, float(max_value))
    else:
        y = e.op("Clip", x, 0.0, float(max_value))
    if slope:
        below = e.op("Relu", e.op("Sub", threshold, x))
        y = e.op("Sub", y, e.op("Mul", below, slope))
    return y


@emitter("LeakyReLU", "LeakyRelu", _a.leaky_relu, _o.leaky_relu, layout="any")
def leaky_relu(e: Emission, operation, x: Value) -> ir.Value:
    return e.op("LeakyRelu", x, alpha=float(getattr(operation, "negative_slope", 0.2)))


@emitter("PReLU", layout="any")
def prelu(e: Emission, layer, x: Value) -> ir.Value:
    return e.op("PRelu", x, e.constant(layer.alpha, x))


@emitter("ELU", "Elu", _a.elu, _o.elu, layout="any")
def elu(e: Emission, operation, x: Value) -> ir.Value:
    return e.op("Elu", x, alpha=float(getattr(operation, "alpha", 1.0)))


@emitter("Celu", _a.celu, _o.celu, layout="any")
def celu(e: Emission, operation, x: Value) -> ir.Value:
    return e.op("Celu", x, alpha=float(getattr(operation, "alpha", 1.0)))


@emitter("Squareplus", _a.squareplus, _o.squareplus, layout="any")
def squareplus(e: Emission, operation, x: Value) -> ir.Value:
    root = e.op("Sqrt", e.op("Add", e.op("Mul", x, x), float(getattr(operation, "b", 4))))
    return e.op("Mul", e.op("Add", x, root), 0.5)


@emitter("SparsePlus", _a.sparse_plus, _o.sparse_plus, layout="any")
def sparse_plus(e: Emission, operation, x: Value) -> ir.Value:
    # A parabola from -1 to 1, and a line above 1.
    raised = e.op("Add", e.op("Clip", x, -1.0, 1.0), 1.0)
    return e.op("Add", e.op("Mul", e.op("Mul", raised, raised), 0.25), e.op("Relu", e.op("Sub", x, 1.0)))


@emitter("SoftShrink", "HardShrink", _a.soft_shrink, _a.hard_shrink, _o.soft_shrink, _o.hard_shrink, layout="any")
def shrink(e: Emission, operation, x: Value) -> ir.Value:
    soft = operation in (_a.soft_shrink, _o.soft_shrink) or type(operation).__name__ == "SoftShrink"
    threshold = float(getattr(operation, "threshold", 0.5))
    return e.op("Shrink", x, lambd=threshold, bias=threshold if soft else 0.0)


@emitter("Threshold", layout="any")
def threshold(e: Emission, operation, x: Value) -> ir.Value:
    above = e.op("Greater", x, float(operation.threshold))
    return e.op("Where", above, x, float(operation.default_value))


@emitter("Glu", _a.glu, _o.glu, layout="any")
def glu(e: Emission, operation, x: Value) -> Value:
    x = x if x.flattened is None else e.arrange(x)
    axis = getattr(operation, "axis", -1)
    size = x.shape[axis]
    if size is None:
        raise NotExpressibleError("halves an axis of unknown size")
    first, second = e.split(x, [size // 2] * 2, x.position(axis))
    shape = tuple(size // 2 if i == axis % x.rank else d for i, d in enumerate(x.shape))
    return Value(e.op("Mul", first, e.op("Sigmoid", second)), shape, x.dtype, x.order)


@emitter("Softmax", "LogSoftmax", _a.softmax, _a.log_softmax, _o.softmax, _o.log_softmax, layout="any")
def softmax(e: Emission, operation, x: Value, mask: Value | None = None) -> ir.Value:
    if mask is not None:
        return _masked_softmax(e, operation, x, mask)
    log = operation in (_a.log_softmax, _o.log_softmax) or type(operation).__name__ == "LogSoftmax"
    axis = getattr(operation, "axis", -1)
    if isinstance(axis, int):
        return e.op("LogSoftmax" if log else "Softmax", x, axis=x.position(axis))
    axes = range(x.rank) if axis is None else axis
    stored = sorted(x.position(a) for a in axes)
    shifted = e.op("Sub", x, e.op("ReduceMax", x, axes=stored, keepdims=1))
    exponents = e.op("Exp", shifted)
    total = e.op("ReduceSum", exponents, np.asarray(stored, np.int64), keepdims=1)
    return e.op("Sub", shifted, e.op("Log", total)) if log else e.op("Div", exponents, total)


def _masked_softmax(e: Emission, layer, x: Value, mask: Value) -> Value:
    x, mask = e.arrange(x), e.arrange(mask)
    seen = boolean(e, mask) if mask.dtype == "bool" else e.op("Greater", e.cast(mask, "float32"), 0.5)
    weights = softmax(e, layer, x.with_onnx(e.op("Where", seen, x, MASKED_SCORE)))
    return x.with_onnx(e.op("Where", seen, weights, 0.0))


@emitter("Activation", layout="any")
def activation(e: Emission, layer, x: Value) -> Value:
    return e.activate(x)
