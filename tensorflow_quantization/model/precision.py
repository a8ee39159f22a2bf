"""Lets a model with a policy of 16 bits compute in float32, as its file does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import autocasting, sublayers

#: Float dtypes of 16 bits, and their unit roundoff: rounding a number errs by up to this share of the number.
HALVES = {"float16": 2**-11, "bfloat16": 2**-8}


def check_float32(graph: LayerGraph, runtime: str, renamed: Callable[[str], str] = str) -> None:
    """Checks that a model takes and computes float32, and no other float dtype.

    Args:
        graph: the flat graph of the model.
        runtime: the title of the runtime that quantizes float32 only.
        renamed: returns the path that the user knows of a path in the graph; by default the same.

    Raises:
        ValueError: an input or a layer has another float dtype; the message names it.
    """
    for tensor in graph.inputs:
        if keras.backend.is_float_dtype(tensor.dtype) and tensor.dtype != "float32":
            raise ValueError(
                f"Input {tensor.name!r} is {tensor.dtype}, and {runtime} quantizes float32 only. Load the weights "
                'into a float model with keras.Input(..., dtype="float32"), and quantize it.'
            )
    for call in graph.calls:
        dtype = getattr(call.operation, "compute_dtype", "float32")
        if call.is_layer and dtype in (*HALVES, "float64"):
            raise ValueError(
                f"Layer {renamed(call.path)!r} computes in {dtype}, and {runtime} quantizes float32 only. Load the "
                'weights into a float model, built with keras.config.set_dtype_policy("float32"), and quantize it.'
            )


@contextlib.contextmanager
def computing_in_float32(operations: Iterable[keras.Operation]) -> Iterator[None]:
    """Lets layers, and the layers within them, compute in float32 for the time of the context."""
    found: dict[int, keras.layers.Layer] = {}
    for operation in operations:
        if isinstance(operation, keras.layers.Layer):
            found.update((id(layer), layer) for layer in (operation, *sublayers(operation)))
    before = [(layer, layer.dtype_policy) for layer in found.values() if layer.compute_dtype in HALVES]
    # The policies of the layers within are in the layers, too.
    before = [
        (layer, policy) for layer, policy in before if not isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    ]
    try:
        for layer, _ in before:
            layer.dtype_policy = "float32"
        with autocasting("float32") if before else contextlib.nullcontext():
            yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def in_float32(arrays: Sequence[np.ndarray]) -> list[Any]:
    """The inputs of a model as tensors; those of 16 bits as float32."""
    return [keras.ops.convert_to_tensor(a.astype("float32") if a.dtype.name in HALVES else a) for a in arrays]
