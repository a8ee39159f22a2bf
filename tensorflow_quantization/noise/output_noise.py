"""`OutputNoise`: what the outputs of a network lose when only one part of it errs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tensorflow_quantization.model.activations import Activation, activation_of, own_activation, without_activation
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.interpreter import CallFunction, Computed, Interpreter, Run
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.noise.parts import FloatTwin
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import inner_layer

Key = TypeVar("Key", bound=Hashable)

#: The outputs of these activations saturate, so differences are measured before them.
_SATURATING = {Activation.SOFTMAX, Activation.SIGMOID, Activation.TANH}


@dataclass(frozen=True)
class Variant:
    """Another way to compute the calls of one operation.

    Attributes:
        operation: the operation.
        function: computes its calls.
    """

    operation: Any
    function: CallFunction


class OutputNoise:
    """Measures the error at the outputs of a network, in units of their power: 0.01 is 20 dB.

    With several outputs, it is the mean of their errors. The outputs are taken before a last softmax, sigmoid or tanh,
    see `before_saturation` for one within a layer, and before an argmax.

    Args:
        graph: the flat graph of the quantized model.
        twin: computes the calls in float.
        inputs: the samples, a tensor for each input of the graph.
    """

    def __init__(self, graph: LayerGraph, twin: FloatTwin, inputs: list[Any]):
        self._graph, self._twin, self._inputs = graph, twin, inputs
        self._interpreter = Interpreter(graph)
        self._tensors = {id(t) for t in map(_before_saturating, graph.outputs) if "float" in t.dtype}
        self._exact = self._finish(self._interpreter.start(inputs, twin.compute))

    def of(self, variants: Mapping[Key, Variant]) -> dict[Key, float]:
        """Returns the noise of each variant, alone in the float model.

        All variants of an operation go on from the same computed inputs: for n operations about n / 2 runs of the
        model.
        """
        waiting: dict[int, list[tuple[Key, Variant]]] = defaultdict(list)
        for key, variant in variants.items():
            waiting[id(variant.operation)].append((key, variant))
        noise: dict[Key, float] = {}
        run = self._interpreter.start(self._inputs, self._twin.compute)
        for call in self._graph.calls:
            for key, variant in waiting.pop(id(call.operation), []):
                noise[key] = self._noise(self._finish(run.fork(self._with(variant))))
            if not waiting:
                break
            run.step()
        return noise

    @property
    def variation(self) -> float:
        """How much the outputs vary from sample to sample, in the unit of the noise."""
        centered = [(y - y.mean(axis=0, keepdims=True), y) for y in self._exact.values()]
        ratios = [np.sum(d**2) / np.sum(y**2) for d, y in centered if y.any()]
        return float(np.mean(ratios)) if ratios else 0.0

    def _with(self, variant: Variant) -> CallFunction:
        def call_function(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            function = variant.function if call.operation is variant.operation else self._twin.compute
            return function(call, args, kwargs)

        return call_function

    def _finish(self, run: Run) -> dict[int, np.ndarray]:
        """Returns the outputs by the ids of their tensors; without outputs that were computed before."""
        found = {}
        while not run.finished:
            found.update(self._outputs_in(run.step()))
        return found

    def _outputs_in(self, computed: Computed) -> dict[int, np.ndarray]:
        pairs = zip(computed.call.outputs, computed.outputs, strict=True)
        return {id(t): float32_array(value).astype(np.float64) for t, value in pairs if id(t) in self._tensors}

    def _noise(self, found: dict[int, np.ndarray]) -> float:
        ratio = SignalToNoise()
        for key, exact in self._exact.items():
            ratio.update(exact, found.get(key, exact), key)
        return ratio.noise


@contextlib.contextmanager
def before_saturation(graph: LayerGraph) -> Iterator[None]:
    """Leaves out a softmax, sigmoid or tanh within the layers that compute the outputs, for the time of the context.

    A layer that also computes something else keeps its own.
    """
    with contextlib.ExitStack() as stack:
        for source in map(_before_saturating, graph.outputs):
            producer = source.producer
            if producer is not None and graph.is_only_call(producer) and _saturates_itself(source):
                stack.enter_context(without_activation(inner_layer(producer.operation)))
        yield


def producers(tensor: Tensor, passes: Callable[[Call], bool]) -> Tensor:
    """Returns the first tensor on the way back from `tensor` that no call with one input, for which `passes`, made."""
    while tensor.producer is not None and len(tensor.producer.inputs) == 1 and passes(tensor.producer):
        (tensor,) = tensor.producer.inputs
    return tensor


def with_float_outputs(graph: LayerGraph) -> LayerGraph:
    """Returns a flat graph that returns, instead of integers, the floats that they were found in.

    The position of the greatest value does not tell how near the values are.
    """
    outputs = [_before_integers(tensor) for tensor in graph.outputs]
    if all(a is b for a, b in zip(outputs, graph.outputs, strict=True)):
        return graph
    return LayerGraph(graph.model, graph.inputs, outputs, graph.input_structure, outputs, graph.calls).live()


def _before_integers(tensor: Tensor) -> Tensor:
    source = tensor
    while "float" not in source.dtype and source.producer is not None and len(source.producer.inputs) == 1:
        (source,) = source.producer.inputs
    return source if "float" in source.dtype else tensor


def _before_saturating(tensor: Tensor) -> Tensor:
    tensor = _before_integers(tensor)
    source = producers(tensor, _keeps_values)
    call = source.producer
    if call is not None and activation_of(call.operation) in _SATURATING:
        return producers(call.inputs[0], _keeps_values)
    return source if _saturates_itself(source) else tensor


def _keeps_values(call: Call) -> bool:
    return isinstance(call.operation, ActivationQuantizer) or Trait.IS_IDENTITY in traits(call)


def _saturates_itself(tensor: Tensor) -> bool:
    return tensor.producer is not None and own_activation(inner_layer(tensor.producer.operation)) in _SATURATING
