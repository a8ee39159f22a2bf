"""`layer_by_layer`: shows each layer of a quantized model, with what it really reads, to methods that improve it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.interpreter import Arguments, Interpreter, infer, input_tensors
from tensorflow_quantization.model.side_by_side import pair_calls
from tensorflow_quantization.text.warn import converting
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, quantized_name, wrappers_in
from tensorflow_quantization.wrappers.queries import inner_layer

#: Bytes of the largest tensor of a batch that is joined of several.
_LARGEST = 2**26


@dataclass
class Step:
    """One layer of a quantized model, before it is computed.

    Attributes:
        call: the call of the quantized model.
        arguments: for each batch, what the call reads: everything before it is quantized, and improved.
        partners: of the calls of the quantized model in the float model; none if no float model was given.
        reference_arguments: for each batch, what the call's partner reads.
    """

    call: Call
    arguments: list[Arguments]
    partners: Partners
    reference_arguments: list[Arguments]

    @property
    def reference(self) -> Call | None:
        """The call of the float model; `None` if there is none, or no float model was given."""
        return self.partners.of(self.call)

    def observe_products(self, observer: Callable[[BaseQuantizeWrapper, str, Any], None]) -> None:
        """Calls the layer with each batch; `observer` gets each wrapper in it, a kernel's name and its input."""
        wrappers = wrappers_in(self.call.operation)
        if wrappers == [self.call.operation] and self._has_one_product():  # it need not be computed to see its input
            (wrapper,) = wrappers
            for (inputs,), _ in self.arguments:
                observer(wrapper, wrapper.kernels[0], wrapper.quantized_inputs(inputs, training=False))
            return
        for wrapper in wrappers:
            wrapper.product_observer = observer
        try:
            for args, kwargs in self.arguments:
                infer(self.call.operation, *args, **kwargs)
        finally:
            for wrapper in wrappers:
                wrapper.product_observer = None

    def _has_one_product(self) -> bool:
        """Returns whether the layer, a wrapper, only multiplies its one argument by its one kernel."""
        wrapper = self.call.operation
        is_plain = type(wrapper).call is BaseQuantizeWrapper.call and len(wrapper.kernels) == 1
        return is_plain and bool(wrapper.weight_quantizers) and all(len(args) == 1 for args, _ in self.arguments)


class Method(Protocol):
    """What improves one layer at a time."""

    def improve(self, step: Step) -> None:
        """Changes the layer of a step in place."""


def layer_by_layer(
    quantized: keras.Model, data: Any, methods: Sequence[Method], model: keras.Model | None = None
) -> None:
    """Runs a quantized model on all batches at once, a layer at a time, and lets methods improve each before it runs.

    So a method sees inputs that carry the errors of all layers before, after their improvement. A layer that is called
    several times is left out: what is best for one call may be bad for another. The memory is the largest that the
    tensors of all samples, which are still needed, take at one point of the model.

    Args:
        quantized: the model to improve; changed in place. If a method fails or is interrupted, it is as before.
        data: the samples, see `input_batches`.
        methods: each gets every quantized layer that is called once.
        model: the float model that `quantized` was made from, for methods that compare. Default: none.

    Raises:
        ValueError: the data does not fit the inputs of the model, or `quantized` was not made from `model`.
    """
    graph = LayerGraph.trace(quantized).flatten()
    float_graph = LayerGraph.trace(model).flatten() if model is not None else None
    partners = Partners() if float_graph is None else Partners.between(float_graph, graph)
    arrays = joined(graph, list(input_batches(graph, data, BATCH_SIZE, "data")))
    batches = [input_tensors(graph, x) for x in arrays]
    runs = [Interpreter(graph).start(x) for x in batches]
    reference = Reference(float_graph, batches, graph, partners) if float_graph is not None else None
    del arrays, batches
    with unchanged_on_error(quantized):
        for call in graph.calls:
            if is_improvable(graph, call):
                partner = partners.of(call)
                expected = reference.arguments(partner) if reference is not None and partner is not None else []
                step = Step(call, [run.arguments() for run in runs], partners, expected)
                for method in methods:
                    method.improve(step)
                del step, expected
            for run in runs:
                run.step()


def is_improvable(graph: LayerGraph, call: Call) -> bool:
    """Whether methods may change the layer of a call: it is quantized, and no other call computes it."""
    return isinstance(call.operation, BaseQuantizeWrapper) and graph.is_only_call(call)


def joined(graph: LayerGraph, batches: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Joins batches as far as the largest tensor stays below `_LARGEST`: a layer is called less often then."""
    shapes = [t.shape for t in graph.inputs] + [t.shape for call in graph.calls for t in call.outputs]
    if any(shape[:1] != (None,) or None in shape[1:] for shape in shapes):
        return batches
    count = _LARGEST // (4 * max(math.prod(size or 1 for size in shape[1:]) for shape in shapes))
    joined: list[list[np.ndarray]] = []
    for batch in batches:
        if joined and len(joined[-1][0]) + len(batch[0]) <= count:
            joined[-1] = [np.concatenate(pair) for pair in zip(joined[-1], batch, strict=True)]
        else:
            joined.append(batch)
    return joined


class Partners:
    """Finds the call or layer of the float model that a call or layer of the quantized model was made from.

    Args:
        pairs: (call of the float model, call of the quantized one); default: none.
    """

    def __init__(self, pairs: Sequence[tuple[Call, Call]] = ()):
        self._calls = {id(call): partner for partner, call in pairs}
        self._layers = {id(inner_layer(call.operation)): partner.operation for partner, call in pairs}

    @classmethod
    def between(cls, float_graph: LayerGraph, graph: LayerGraph) -> Partners:
        """Pairs the calls of two graphs.

        Raises:
            ValueError: `graph` is not the graph of a model that was made from the float model.
        """
        pairs = pair_calls(float_graph, graph, quantized_name(""))
        wrapped = [(call, copy) for call, copy in pairs if isinstance(copy.operation, BaseQuantizeWrapper)]
        other = next((copy for call, copy in wrapped if _shapes(call.operation) != _shapes(copy.operation.layer)), None)
        if other is not None or not wrapped:
            what = "it has no layer of these names" if other is None else f"{other.path!r} has weights of other shapes"
            raise ValueError(
                f"Model {graph.model.name!r} was not made from {float_graph.model.name!r}: {what}. Pass the model that "
                "quantize_model got."
            )
        return cls(pairs)

    def of(self, call: Call) -> Call | None:
        """Returns the call of the float model."""
        return self._calls.get(id(call))

    def of_layer(self, layer: keras.layers.Layer) -> Any:
        """Returns the layer of the float model, for one without its wrapper; `None` if there is none."""
        return self._layers.get(id(layer))


def _shapes(layer: keras.Operation) -> list[tuple[int, ...]]:
    return [tuple(v.shape) for v in layer.weights] if isinstance(layer, keras.layers.Layer) else []


class Reference:
    """The float model on all batches; advances on demand.

    Args:
        float_graph: the graph of the float model.
        batches: the inputs.
        graph: the graph of the quantized model, whose branches may be in another order.
        partners: of its calls.
    """

    def __init__(self, float_graph: LayerGraph, batches: list[Any], graph: LayerGraph, partners: Partners):
        self._runs = [Interpreter(float_graph).start(x) for x in batches]
        self._left = iter(float_graph.calls)
        self._asked = {id(partners.of(call)) for call in graph.calls if is_improvable(graph, call)}
        self._kept: dict[int, list[Arguments]] = {}

    def arguments(self, call: Call) -> list[Arguments]:
        """Returns what a call, the partner of an improvable one, reads, for each batch; only once for each call."""
        while id(call) not in self._kept:
            following = next(self._left)
            if id(following) in self._asked:
                self._kept[id(following)] = [run.arguments() for run in self._runs]
            for run in self._runs:
                run.step()
        return self._kept.pop(id(call))


@contextlib.contextmanager
def unchanged_on_error(model: keras.Model) -> Iterator[None]:
    """Gives a model back the weights that it has now if the context raises, or is interrupted."""
    with converting():  # a copy: the array of a backend may be a view of the variable
        before = [np.array(keras.ops.convert_to_numpy(w)) for w in model.weights]
    try:
        yield
    except BaseException:
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value)
        raise
