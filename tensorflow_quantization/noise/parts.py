"""The parts of a quantized model that err: each activation quantizer, and the weights of each layer.

`FloatTwin` computes a quantized model without any of its errors, or with the error of one part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import infer
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.quantizers.observing import Observer, observing, unquantized
from tensorflow_quantization.wrappers import (
    BaseQuantizeWrapper,
    activation_quantizers_in,
    float_path,
    inner_layer,
    weight_quantizers_in,
    wrappers_in,
)
from tensorflow_quantization.wrappers.bias import following_normalization

#: What stands in for a quantizer; `None`: the quantizer itself.
Observers = Mapping[ActivationQuantizer | WeightQuantizer, Observer | None]


@dataclass(frozen=True, eq=False)
class Part:
    """One source of error in a quantized model.

    Attributes:
        call: the first call of the operation that holds the part.
        quantizer: an activation quantizer; `None` for the weights of the operation.
    """

    call: Call
    quantizer: ActivationQuantizer | None

    @property
    def path(self) -> str:
        """The path of the layer in the float model."""
        return float_path(self.call.path)


class FloatTwin:
    """The calls of a quantized graph, computed in float with the weights of the float model.

    Args:
        graph: the flat graph of the quantized model.
        reference: the flat graph of the float model.
    """

    def __init__(self, graph: LayerGraph, reference: LayerGraph):
        self._calls = graph.calls
        originals = {call.path: call.operation for call in reference.calls}
        #: By the id of an operation: pairs of its variable and the variable of the float model, if their values differ.
        self._changed: dict[int, list[tuple[keras.Variable, keras.Variable]]] = {}
        for call in graph.calls:
            # The copy of an output's layer may have an Identity with its name behind it: a wrapper looks for the path
            # of its layer first.
            paths = (call.path, float_path(call.path))
            for path in paths[::-1] if wrappers_in(call.operation) else paths:
                pairs = _same_variables(call.operation, originals.get(path))
                if pairs:
                    self._changed[id(call.operation)] = [pair for pair in pairs if _differ(*pair)]
                    break
        #: By the id of a wrapper without a bias: the normalization that has one for it, and its two moving means.
        self._shifts: dict[int, tuple[keras.layers.Layer, keras.Variable, keras.Variable]] = {}
        changed = {id(own): theirs for pairs in self._changed.values() for own, theirs in pairs}
        for call in graph.calls:
            operation = call.operation
            if isinstance(operation, BaseQuantizeWrapper) and getattr(operation.layer, "bias", None) is None:
                normalization = following_normalization(operation)
                if normalization is not None and id(normalization.moving_mean) in changed:
                    own = normalization.moving_mean
                    self._shifts[id(operation)] = (normalization, own, changed[id(own)])

    def compute(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns the outputs of a call in the float model."""
        operation = call.operation
        if isinstance(operation, ActivationQuantizer):
            return args[0]
        if isinstance(operation, BaseQuantizeWrapper):
            with self.weights_of_float(operation):
                return infer(operation.layer, *args, **kwargs)
        return self.with_quantizers(operation, args, kwargs, {})

    def with_quantizers(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], active: Observers, own: bool = False
    ) -> Any:
        """Returns the outputs of an operation in which only some quantizers quantize.

        Args:
            operation: the operation.
            args, kwargs: its arguments.
            active: the quantizers that quantize, or their observers; all others return their inputs.
            own: whether the weights are those of the quantized model, or (default) those of the float model.
        """
        found: list[ActivationQuantizer | WeightQuantizer] = [*activation_quantizers_in(operation)]
        found += weight_quantizers_in(operation)
        observers = {q: active.get(q, unquantized) for q in found}
        weights = contextlib.nullcontext() if own else self.weights_of_float(operation)
        with weights, observing(observers):
            outputs = infer(operation, *args, **kwargs)
        if not own or id(operation) not in self._shifts:
            return outputs
        # The normalization behind is computed with the mean of the float model.
        normalization, mean, theirs = self._shifts[id(operation)]
        shape = [1] * len(outputs.shape)
        shape[normalization.axis] = -1
        shift = ops.convert_to_tensor(theirs) - ops.convert_to_tensor(mean)
        return outputs + ops.cast(ops.reshape(shift, shape), outputs.dtype)

    @contextlib.contextmanager
    def weights_of_float(self, operation: Any, without_biases: bool = False) -> Iterator[None]:
        """Gives an operation the weights of the float model for the time of the context."""
        values = [
            (own, ops.convert_to_tensor(ops.cast(theirs.value, own.dtype)))
            for own, theirs in self._changed.get(id(operation), [])
            if not (without_biases and own.name == "bias")
        ]
        with keras.StatelessScope(values) if values else contextlib.nullcontext():
            yield

    @property
    def trained(self) -> bool:
        """Whether half or more of the operations with quantized weights have others than the float model."""
        held = [call.operation for call in self._calls if weight_quantizers_in(call.operation)]
        others = [operation for operation in held if any(own.name != "bias" for own, _ in self.changed(operation))]
        return len(others) * 2 >= len(held) > 0

    def changed(self, operation: Any) -> list[tuple[keras.Variable, keras.Variable]]:
        """Returns pairs of a variable of an operation and the variable of the float model, if their values differ.

        A mean that takes up the bias of the layer before is left out: it belongs to that layer.
        """
        means = {id(mean) for _, mean, _ in self._shifts.values()}
        return [pair for pair in self._changed.get(id(operation), []) if id(pair[0]) not in means]


def parts_of(call: Call, twin: FloatTwin) -> list[Part]:
    """Returns the parts of the operation of a call: its activation quantizers, then its weights."""
    parts = [Part(call, quantizer) for quantizer in activation_quantizers_in(call.operation)]
    if weight_quantizers_in(call.operation) or twin.changed(call.operation):
        parts.append(Part(call, None))
    return parts


def _same_variables(operation: Any, original: Any) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns pairs of the variables of two layers; empty if they do not correspond."""
    if not isinstance(operation, keras.layers.Layer) or not isinstance(original, keras.layers.Layer):
        return []
    ranges = {id(v) for quantizer in activation_quantizers_in(operation) for v in quantizer.variables}
    own = [v for v in inner_layer(operation).variables if id(v) not in ranges]
    theirs = original.variables
    if len(own) != len(theirs) or any(a.shape != b.shape for a, b in zip(own, theirs, strict=True)):
        return []
    return [
        (a, b) for a, b in zip(own, theirs, strict=True) if "float" in str(keras.backend.standardize_dtype(a.dtype))
    ]


def _differ(own: keras.Variable, theirs: keras.Variable) -> bool:
    return not np.array_equal(float32_array(own), float32_array(theirs))
