"""CategoryEncoding and Discretization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.builder import DTYPES
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masking import unsqueeze
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value


@emitter("CategoryEncoding")
def category_encoding(e: Emission, layer, x: Value, count_weights: Value | None = None) -> Value:
    if count_weights is not None:
        raise NotExpressibleError(
            "is called with count_weights; multiply a one_hot encoding by the weights and sum it instead"
        )
    return _encode(e, layer, e.cast(x, "int32"), layer.num_tokens)


@emitter("Discretization")
def discretization(e: Emission, layer, x: Value) -> Value:
    if layer.bin_boundaries is None:
        raise NotExpressibleError("has no bin boundaries yet; adapt() it first")
    boundaries = np.asarray(layer.bin_boundaries, np.float32)
    reached = e.op("GreaterOrEqual", unsqueeze(e, e.cast(x, "float32"), [x.rank]), boundaries)
    numbers = e.op("Cast", reached, to=ir.DataType.INT32.value)
    bins = Value(e.op("ReduceSum", numbers, np.asarray([-1], np.int64), keepdims=0), x.shape, "int32")
    return e.output(bins.onnx) if layer.output_mode == "int" else _encode(e, layer, bins, len(boundaries) + 1)


def _encode(e: Emission, layer, x: Value, depth: int) -> Value:
    """The encoding of integers from 0 to `depth` - 1."""
    if layer.sparse:
        raise NotExpressibleError("has sparse=True, and ONNX tensors are dense")
    if layer.output_mode == "one_hot":
        if x.rank > 1 and x.shape[-1] == 1:
            return e.output(_one_hot(e, x.onnx, depth))  # the last axis, of size 1, becomes the axis of the categories
        return e.output(_one_hot(e, unsqueeze(e, x, [x.rank]), depth))
    if x.rank != 2:
        raise NotExpressibleError(f"has output_mode={layer.output_mode!r} for an input that is not (batch, categories)")
    each = _one_hot(e, unsqueeze(e, x, [2]), depth)
    if layer.output_mode == "multi_hot":
        return e.output(e.op("ReduceMax", each, axes=[1], keepdims=0))
    return e.output(e.op("ReduceSum", each, np.asarray([1], np.int64), keepdims=0))


def _one_hot(e: Emission, x: ir.Value, depth: int) -> ir.Value:
    dtype = e.output(x).dtype
    return e.op("Cast", e.op("Equal", x, np.arange(depth, dtype=np.int32)), to=DTYPES[dtype].value)
