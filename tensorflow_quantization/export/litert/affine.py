"""Layers that multiply each channel by a constant and add a constant, and the products that they are folded into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.export.onnx.emission import to_numpy
from tensorflow_quantization.export.onnx.registry import find_emitter
from tensorflow_quantization.model.fusion import folded_normalizations
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import Trait, is_one_of, operation_traits
from tensorflow_quantization.model.tracing import trace_call
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, inner_layer
from tensorflow_quantization.wrappers.queries import weight_quantizers_in
from tensorflow_quantization.wrappers.unwrapped import unwrapped

#: Factor and shift of an operation, from its constant and a sign: -1 if the constant is the first operand; `None` for
#: a function that is not linear.
_ARITHMETIC = {
    "Add": lambda constant, sign: (np.ones(1), constant),
    "Divide": lambda constant, sign: (1.0 / constant, np.zeros(1)) if sign > 0 else None,
    "Multiply": lambda constant, sign: (constant, np.zeros(1)),
    "Subtract": lambda constant, sign: (np.array([sign]), -sign * constant),
    "TrueDivide": lambda constant, sign: (1.0 / constant, np.zeros(1)) if sign > 0 else None,
}


@dataclass(frozen=True)
class Affine:
    """x * factor + shift, with a float64 vector of factors and shifts for the channels on the last axis."""

    factor: np.ndarray
    shift: np.ndarray

    def then(self, other: Affine) -> Affine:
        """This function, followed by `other`."""
        return Affine(self.factor * other.factor, self.shift * other.factor + other.shift)


def read_affine(call: Call) -> Affine | None:
    """The layer of `call` as factors and shifts of channels; `None` if the layer does something else."""
    layer, shape = inner_layer(call.operation), call.outputs[0].shape
    if len(shape) < 2 or shape[-1] is None:
        return None
    if isinstance(layer, keras.layers.BatchNormalization):
        found = _batch_normalization(layer, len(shape))
    elif isinstance(layer, keras.layers.Normalization):
        found = _normalization(layer)
    elif isinstance(layer, keras.layers.Rescaling):
        found = _array(layer.scale), _array(layer.offset)
    elif call.is_layer:
        return _composite(replace(call, operation=layer))
    else:
        found = _arithmetic(call)
    if found is None:
        return None
    factor, shift = (_per_channel(array, shape[-1]) for array in found)
    return None if factor is None or shift is None else Affine(factor, shift)


def folded_layers(graph: LayerGraph) -> tuple[dict[int, Affine], set[int]]:
    """The normalizations that are folded into the kernel and bias of the wrapped product before them.

    Returns:
        For each such product, by the id of its call, the factor and shift of all its normalizations; and the ids of
        the calls of these normalizations.
    """
    layers, calls = unwrapped(graph)
    wrapped = {id(calls[id(call)]): call for call in graph.calls}
    affines: dict[int, Affine] = {}
    folded: set[int] = set()
    for call in graph.calls:
        if not _takes_up(call.operation):
            continue
        normalizations = [wrapped[id(found)] for found in folded_normalizations(layers, calls[id(call)])]
        steps = [read_affine(normalization) for normalization in normalizations]
        whole = _chain(steps)
        if whole is not None and steps:
            affines[id(call)] = whole
            folded.update(id(normalization) for normalization in normalizations)
    return affines, folded


def _takes_up(operation: keras.Operation) -> bool:
    """Whether the layer in a wrapper multiplies by quantized kernels: normalizations are folded into these only."""
    if not isinstance(operation, BaseQuantizeWrapper) or not weight_quantizers_in(operation):
        return False
    return Trait.MULTIPLIES_BY_WEIGHTS in operation_traits(operation.layer)


def _chain(steps: Iterable[Affine | None]) -> Affine | None:
    """All steps in one; `None` if a step is `None`."""
    whole = Affine(np.ones(1), np.zeros(1))
    for step in steps:
        if step is None:
            return None
        whole = whole.then(step)
    return whole


def _batch_normalization(layer: Any, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
    if layer.axis not in (-1, rank - 1):
        return None
    factor = 1.0 / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        factor = factor * _array(layer.gamma)
    shift = -_array(layer.moving_mean) * factor
    return factor, shift + _array(layer.beta) if layer.center else shift


def _normalization(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    mean = _array(layer.mean)
    deviation = np.maximum(np.sqrt(_array(layer.variance)), keras.config.epsilon())
    if layer.invert:
        return deviation, mean
    return 1.0 / deviation, -mean / deviation


def _arithmetic(call: Call) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and shift of an operation of `keras.ops` on one tensor and a constant; `None` for other operations."""
    if is_one_of(call, ("Negative",)):
        return -np.ones(1), np.zeros(1)
    if len(call.args) != 2 or len(call.inputs) != 1 or call.class_name not in _ARITHMETIC:
        return None
    tensor_first = call.args[0] is call.inputs[0]
    constant = _array(call.args[int(tensor_first)])
    return _ARITHMETIC[call.class_name](constant, 1.0 if tensor_first else -1.0)


def _composite(call: Call) -> Affine | None:
    """A custom layer whose `call` is a chain of such steps; `None` for other layers."""
    if find_emitter(call.operation) is not None:
        return None
    try:
        traced, _ = trace_call(call)
    except Exception:  # `call` cannot be traced: the layer is computed unchanged
        return None
    graph = traced.flatten()
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    (tensor,), whole = graph.inputs, Affine(np.ones(1), np.zeros(1))
    for inner in graph.calls:
        step = read_affine(inner) if inner.inputs == [tensor] else None
        if step is None:
            return None
        whole = whole.then(step)
        (tensor,) = inner.outputs
    return whole if tensor is graph.outputs[0] and graph.calls else None


def _array(x: Any) -> np.ndarray:
    return to_numpy(x, "float32").astype(np.float64)


def _per_channel(array: np.ndarray, channels: int) -> np.ndarray | None:
    """One number per channel; `None` if `array` varies along other axes."""
    if array.size not in (1, channels) or (array.ndim and array.shape[-1] != array.size):
        return None
    return np.broadcast_to(array.ravel(), (channels,))
