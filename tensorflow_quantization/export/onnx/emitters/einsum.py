"""EinsumDense: a MatMul between reshapes if the equation is a matrix product, else ONNX' Einsum."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.reshaping import permute
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value, stored_array
from tensorflow_quantization.model.equation import Equation


@emitter("EinsumDense")
def einsum_dense(e: Emission, layer, x: Value) -> Value:
    equation = Equation.parse(layer.equation, x.rank)
    return e.activate(_product(e, equation, x) if equation.is_product else _einsum(e, equation, x))


def _product(e: Emission, equation: Equation, x: Value) -> Value:
    sizes = dict(zip(equation.kernel, e.operation.kernel.shape, strict=True))
    summed = [sizes[a] for a in equation.summed]
    made = [sizes[a] for a in equation.made]

    def matrix(kernel: np.ndarray) -> np.ndarray:
        axes = [equation.kernel.index(a) for a in equation.summed + equation.made]
        return kernel.transpose(axes).reshape(math.prod(summed), math.prod(made))

    x = e.arrange(x, tuple(equation.inputs.index(a) for a in equation.free + equation.summed))
    free = [0] * len(equation.free)
    joined: Value | ir.Value = x if len(summed) == 1 else e.reshape(x, [*free, math.prod(summed)])
    y = e.op("MatMul", joined, e.weight("kernel", matrix, axis=1))
    computed = equation.free + equation.made
    # Use the shape of the tensor: the shape in Keras may be wrong for an equation with dots.
    shape = (*(x.shape[equation.inputs.index(a)] for a in equation.free), *made)
    product = permute(Value(y, shape, e.outputs[0].dtype), [computed.index(a) for a in equation.output])
    bias = _bias(e, product)
    if bias is not None and bias.ndim <= len(made):
        # Runtimes fuse a bias if it is a vector and directly follows the MatMul.
        y, bias = e.op("Add", y, _named(e, np.broadcast_to(bias, made).ravel())), None
    product = product.with_onnx(y if len(made) == 1 else e.reshape(y, [*free, *made]))
    return product if bias is None else product.with_onnx(e.op("Add", product, _named(e, bias)))


def _bias(e: Emission, like: Value) -> np.ndarray | None:
    bias = e.array("bias")
    return None if bias is None else stored_array(bias, like)


def _named(e: Emission, bias: np.ndarray) -> ir.Value:
    return e.builder.shared_initializer(f"{e.path}/bias", bias)


def _einsum(e: Emission, equation: Equation, x: Value) -> Value:
    if e.is_quantized("kernel"):
        raise NotExpressibleError(
            f"has the equation {e.operation.equation!r}, not a matrix product, so its kernel cannot be quantized"
        )
    text = f"{equation.inputs},{equation.kernel}->{equation.output}"
    y = e.output(e.op("Einsum", x, e.weight("kernel"), equation=text))
    bias = _bias(e, y)
    return y if bias is None else y.with_onnx(e.op("Add", y, _named(e, bias)))
