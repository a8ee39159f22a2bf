"""Dense, Embedding and ReversibleEmbedding."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Order, Value, flattened_permutation, keras_order


def _keep_flattened(layer, values: Sequence[Value]) -> list[Order] | None:
    """Keras' order, but no change for a flattened image: the emitter permutes the rows of the kernel instead."""
    return None if values[0].flattened is not None else [keras_order(values[0].rank)]


@emitter("Dense", layout=_keep_flattened)
def dense(e: Emission, layer, x: Value) -> Value:
    if e.is_in_blocks("kernel"):
        x = e.arrange(x)  # permuted rows would tear the blocks apart
    rows = None if x.flattened is None else flattened_permutation(x.flattened)
    kernel = e.weight("kernel", lambda k: k if rows is None else k[rows], axis=1)
    bias = e.weight("bias")
    # Runtimes compute MatMul in integers even if the output is not quantized, Gemm only if the output is quantized.
    if x.rank == 2 and not e.is_quantized("kernel"):
        return e.activate(e.output(e.op("Gemm", x, kernel, bias)))
    y = e.op("MatMul", x, kernel)
    if bias is not None:
        y = e.op("Add", y, bias)
    return e.activate(e.output(y))


@emitter("Embedding")
def embedding(e: Emission, layer, x: Value) -> Value:
    return e.output(e.op("Gather", e.weight("embeddings", axis=0), e.cast(x, "int32")))


@emitter("ReversibleEmbedding")
def reversible_embedding(e: Emission, layer, x: Value, reverse: bool = False) -> Value:
    if not reverse:
        return embedding(e, layer, x)
    if layer.tie_weights:
        # Transpose in the file, so that both directions share one weight.
        kernel = e.op("Transpose", e.weight("embeddings", axis=0), perm=[1, 0])
    else:
        kernel = e.weight("reverse_embeddings", axis=1)
    y = e.op("MatMul", x, kernel)
    if layer.logit_soft_cap is not None:
        cap = float(layer.logit_soft_cap)
        y = e.op("Mul", e.op("Tanh", e.op("Div", y, cap)), cap)
    return e.output(y)
