"""Dense and Embedding: a matrix, multiplied or looked up."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow_quantization.export.emission import Emission
from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.registry import emitter
from tensorflow_quantization.export.values import Order, Value, flattened_permutation, keras_order


def _keep_flattened(layer, values: Sequence[Value]) -> list[Order] | None:
    """Keras' order; but a flattened image may stay as it is stored, the rows of the kernel follow it."""
    return None if values[0].flattened is not None else [keras_order(values[0].rank)]


@emitter("Dense", layout=_keep_flattened)
def dense(e: Emission, layer, x: Value) -> Value:
    rows = None if x.flattened is None else flattened_permutation(x.flattened)
    kernel = e.weight("kernel", lambda k: k if rows is None else k[rows], axis=1)
    bias = e.weight("bias")
    # A runtime computes MatMul in integers whatever follows; Gemm only if its result is quantized again.
    if x.rank == 2 and not e.is_quantized("kernel"):
        return e.activate(e.output(e.op("Gemm", x, kernel, bias)))
    y = e.op("MatMul", x, kernel)
    if bias is not None:
        y = e.op("Add", y, bias)
    return e.activate(e.output(y))


@emitter("Embedding")
def embedding(e: Emission, layer, x: Value) -> Value:
    if layer.mask_zero:
        raise NotExpressibleError("has mask_zero=True, and masks are not exported")
    return e.output(e.op("Gather", e.weight("embeddings", axis=0), e.cast(x, "int32")))
