"""Logical operations of `keras.ops`. Keras builds masks with them."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.merging import binary
from tensorflow_quantization.export.onnx.emitters.operations import reduce
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value

for _op_type, _name in {"And": "LogicalAnd", "Or": "LogicalOr", "Xor": "LogicalXor"}.items():

    @emitter(_name, layout="any")
    def _logical(e: Emission, operation, x1: Any, x2: Any, op_type: str = _op_type) -> Value:
        return binary(e, op_type, x1, x2, "bool")


@emitter("LogicalNot", layout="any")
def logical_not(e: Emission, operation, x: Value) -> Value:
    return e.output(e.op("Not", e.cast(x, "bool")), x)


for _op_type, _name in {"ReduceMax": "Any", "ReduceMin": "All"}.items():

    @emitter(_name, layout="any")
    def _quantified(e: Emission, operation, x: Value, op_type: str = _op_type) -> Value:
        numbers = e.cast(e.cast(x, "bool"), "int32")
        y = reduce(e, op_type, numbers, operation.axis, operation.keepdims)
        return y.with_onnx(e.op("Cast", y, to=ir.DataType.BOOL.value))
