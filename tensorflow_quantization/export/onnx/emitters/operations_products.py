"""Operations of `keras.ops` that multiply and sum, such as dot, tensordot and einsum."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.merging import binary
from tensorflow_quantization.export.onnx.emitters.operations_shape import reshape_to
from tensorflow_quantization.export.onnx.emitters.reshaping import permute
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value


def _operands(e: Emission, *arguments: Any) -> list[Value]:
    return [e.arrange(e.value(x, e.outputs[0].dtype)) for x in arguments]


@emitter("Dot")
def dot(e: Emission, operation, x1: Any, x2: Any) -> Value:
    a, b = _operands(e, x1, x2)
    if not a.rank or not b.rank:
        return binary(e, "Mul", x1, x2)
    if b.rank <= 2:
        return e.output(e.op("MatMul", a, b))
    return _contract(e, a, b, [a.rank - 1], [b.rank - 2])


@emitter("Inner")
def inner(e: Emission, operation, x1: Any, x2: Any) -> Value:
    a, b = _operands(e, x1, x2)
    return _contract(e, a, b, [a.rank - 1], [b.rank - 1])


@emitter("Vdot")
def vdot(e: Emission, operation, x1: Any, x2: Any) -> Value:
    a, b = (e.reshape(v, [-1]) for v in _operands(e, x1, x2))
    return e.output(e.op("MatMul", a, b))


@emitter("Outer")
def outer(e: Emission, operation, x1: Any, x2: Any) -> Value:
    a, b = _operands(e, x1, x2)
    return e.output(e.op("Mul", e.reshape(a, [-1, 1]), e.reshape(b, [1, -1])))


@emitter("Tensordot")
def tensordot(e: Emission, operation, x1: Any, x2: Any) -> Value:
    a, b = _operands(e, x1, x2)
    axes = operation.axes
    if isinstance(axes, int):
        first, second = list(range(a.rank - axes, a.rank)), list(range(axes))
    else:
        first, second = (np.atleast_1d(x).tolist() for x in axes)
    return _contract(e, a, b, [i % a.rank for i in first], [i % b.rank for i in second])


def _contract(e: Emission, a: Value, b: Value, first: list[int], second: list[int]) -> Value:
    """The sum of products over the axes `first` of `a` and `second` of `b`, as a MatMul of two matrices."""
    free_a = [i for i in range(a.rank) if i not in first]
    free_b = [i for i in range(b.rank) if i not in second]
    shared = [a.shape[i] if a.shape[i] is not None else b.shape[j] for i, j in zip(first, second, strict=True)]
    if None in shared:
        raise NotExpressibleError("sums over an axis of unknown size")
    count = int(np.prod([d or 1 for d in shared]))
    a = e.arrange(a, (*free_a, *first))
    b = e.arrange(b, (*second, *free_b))
    left: Any = a if len(first) == 1 and len(free_a) else e.reshape(a, [-1, count])
    right: Any = b if len(second) == 1 and len(free_b) == 1 else e.reshape(b, [count, -1])
    y = e.op("MatMul", left, right)
    return e.output(reshape_to(e, y, e.outputs[0].shape))


@emitter("Einsum")
def einsum(e: Emission, operation, *operands: Any, **kwargs: Any) -> Value:
    text = operation.subscripts.replace(" ", "")
    values = _operands(e, *operands)
    if "->" not in text:
        letters = text.replace(",", "").replace("...", "")
        dots = "..." if "..." in text else ""
        text += "->" + dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    product = _batch_product(e, text, values)
    return product if product is not None else e.output(e.op("Einsum", *values, equation=text))


def _batch_product(e: Emission, text: str, values: list[Value]) -> Value | None:
    """The equation as a MatMul of transposed tensors, which is faster than Einsum; `None` if there is none."""
    inputs, output = text.split("->")
    terms = inputs.split(",")
    if len(terms) != 2 or "." in text or any(len(set(t)) < len(t) for t in (*terms, output)):
        return None
    first, second = terms
    batch = [c for c in output if c in first and c in second]
    shared = [c for c in first if c in second and c not in output]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    if (len(shared), len(rows), len(columns)) != (1, 1, 1) or set(output) != {*batch, *rows, *columns}:
        return None
    if output.index(rows[0]) > output.index(columns[0]):  # with swapped operands, the result needs no Transpose
        return _batch_product(e, f"{second},{first}->{output}", values[::-1])
    a = e.arrange(values[0], tuple(first.index(c) for c in batch + rows + shared))
    b = e.arrange(values[1], tuple(second.index(c) for c in batch + shared + columns))
    computed = batch + rows + columns
    shape = tuple(e.outputs[0].shape[output.index(c)] for c in computed)
    y = Value(e.op("MatMul", a, b), shape, e.outputs[0].dtype)
    return permute(y, [computed.index(c) for c in output])
