"""TimeDistributed layers: the inner layer over folded time, which is quantized like any other layer.

    (batch, time, ...) > Reshape to (batch * time, ...) > inner layer > Reshape to (batch, time, ...)

The inner layer takes the name of the TimeDistributed layer. A chain of TimeDistributed layers is folded once, so that
kernels fuse a normalization and an activation in it. Dense layers and activations compute each step alone: they need no
fold. A BatchNormalization then sees all steps at once in training, and not one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from tensorflow_quantization.model.activations import Activation, activation_of
from tensorflow_quantization.model.clone import copy_variables
from tensorflow_quantization.model.copying import copy_of
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.keras_classes import computes_like, is_of_keras
from tensorflow_quantization.model.keras_internals import ReshapeOperation, sublayers
from tensorflow_quantization.model.masking import masked_calls
from tensorflow_quantization.model.op_traits import Trait, operation_traits
from tensorflow_quantization.model.tracing import UntraceableError
from tensorflow_quantization.quantize.spec import SpecIndex
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.wrappers import find_wrapper

_ELEMENTWISE = {Activation.RELU, Activation.RELU6, Activation.SIGMOID, Activation.SILU, Activation.TANH}
_ELEMENTWISE |= {Activation.ELU, Activation.GELU, Activation.HARD_SILU, Activation.LEAKY_RELU}


def open_time_distributed(graph: LayerGraph, spec: SpecIndex) -> tuple[LayerGraph, set[str], dict[str, Reason]]:
    """Replace the TimeDistributed layers of a graph by their inner layers over folded time.

    Args:
        graph: a graph that is not flattened. The result uses its calls, so do not use it again.
        spec: a layer that its entries name by class, or that holds a model and that they name, stays as it is.

    Returns:
        The new graph; the paths of the replaced layers; and by path, why others stay as they are.
    """
    opened: set[str] = set()
    reasons: dict[str, Reason] = {}
    if not any(map(_multiplies, _time_distributed(graph))):
        return graph, opened, reasons
    return _Opener(opened, reasons, masked_calls(graph.flatten()), spec).open(graph), opened, reasons


def _time_distributed(graph: LayerGraph) -> Iterator[Any]:
    for call in graph.calls:
        if call.subgraph is not None:
            yield from _time_distributed(call.subgraph)
        elif _is_time_distributed(call):
            yield call.operation


def _is_time_distributed(call: Call) -> bool:
    return type(call.operation) is keras.layers.TimeDistributed


def _multiplies(layer: Any) -> bool:
    """Whether a TimeDistributed layer holds a layer with a kernel that can be quantized."""
    inner = (layer.layer, *sublayers(layer.layer))
    return any(find_wrapper(x) and Trait.MULTIPLIES_BY_WEIGHTS in operation_traits(x) for x in inner)


def _is_stepwise(layer: Any) -> bool:
    """Whether a layer computes the same for each index of all axes but the last, so that it needs no fold."""
    activation = activation_of(layer)
    return computes_like(layer, "Dense") or activation in _ELEMENTWISE


class _Opener:
    def __init__(self, opened: set[str], reasons: dict[str, Reason], masked: set[str], spec: SpecIndex):
        self.opened = opened
        self.reasons = reasons
        self.masked = masked
        self.spec = spec
        self.graphs: dict[int, LayerGraph] = {}  # by id of the old graph, or of an inner model
        self.traced: list[LayerGraph] = []  # keeps the ids in use
        self.layers: dict[int, keras.layers.Layer] = {}  # by id of the old TimeDistributed layer

    def open(self, graph: LayerGraph) -> LayerGraph:
        if id(graph) not in self.graphs:
            self.graphs[id(graph)] = _Folding(self, graph).run()
        return self.graphs[id(graph)]

    def inner(self, call: Call, shape: tuple[int | None, ...]) -> keras.layers.Layer:
        """A copy of the inner layer with the name of its TimeDistributed layer."""
        layer: Any = call.operation
        if id(layer) not in self.layers:
            copy: Any = copy_of(layer.layer)
            copy.name = layer.name
            copy(keras.Input(batch_shape=shape, dtype=call.inputs[0].dtype))  # builds it
            copy_variables(layer.layer, copy, call.path)
            self.layers[id(layer)] = copy
        return self.layers[id(layer)]

    def graph_of(self, model: keras.Model, prefix: str) -> LayerGraph:
        """The graph of an inner model; a model that is distributed twice has one."""
        if id(model) not in self.graphs:
            self.traced.append(LayerGraph.trace(model, prefix))
            self.graphs[id(model)] = self.open(self.traced[-1])
        return self.graphs[id(model)]

    def check(self, graph: LayerGraph, call: Call) -> None:
        """Check that the inner layer over folded time computes the same.

        Raises:
            UntraceableError: it does not, or this is not known.
        """
        inner, shape = call.operation.layer, call.inputs[0].shape
        is_model = isinstance(inner, keras.Model)
        entry = self.spec.find(call.name, call.class_names_in_spec, call.path)
        if entry is not None and not entry.is_pattern and (is_model or entry.is_keras_class):
            raise UntraceableError("the spec names it as a whole")
        if not (is_model or is_of_keras(type(inner))):
            raise UntraceableError(f"it distributes a {type(inner).__name__}, which is not of Keras")
        if is_model and (len(inner.inputs) != 1 or len(inner.outputs) != 1):
            raise UntraceableError("it distributes a model with several inputs or outputs")
        if is_model and any(other.name == inner.name and other.operation is not inner for other in graph.calls):
            raise UntraceableError(f"another layer has the name {inner.name!r} of its model")
        if call.path in self.masked or len(call.inputs) > 1:
            raise UntraceableError("a mask may reach it")
        if inner.activity_regularizer is not None:
            raise UntraceableError("its inner layer has an activity regularizer")
        moves = Trait.MOVES_DATA in operation_traits(inner)
        if not (is_model or moves or find_wrapper(inner) is not None or activation_of(inner) is not None):
            raise UntraceableError(f"no quantize wrapper for {type(inner).__name__}")
        if _is_stepwise(inner):
            return
        if None in shape[1:] or None in call.outputs[0].shape[1:]:
            raise UntraceableError("the number or the size of its steps is unknown")
        if len(graph.outputs) > 1 and graph.is_output(call.outputs[0]):
            raise UntraceableError("its output is one of several outputs of the model")


class _Folding:
    """Opens the TimeDistributed layers of one graph; a tensor is folded or unfolded where it is read so."""

    def __init__(self, opener: _Opener, graph: LayerGraph):
        self.opener = opener
        self.graph = graph
        self.calls: list[Call] = []
        self.unfolded: dict[int, Tensor] = {}  # by id of the old tensor
        self.folded: dict[int, Tensor] = {}  # by id of the old tensor
        self.names = {call.name for call in graph.calls}

    def run(self) -> LayerGraph:
        for call in self.graph.calls:
            if not _is_time_distributed(call) or not self._open(call):
                self._keep(call)
        outputs = [self._read(tensor) for tensor in self.graph.outputs]
        structure = substitute(self.graph.output_structure, self._read)
        graph = self.graph
        return LayerGraph(graph.model, graph.inputs, outputs, graph.input_structure, structure, self.calls)

    def _keep(self, call: Call) -> None:
        call.inputs = [self._read(tensor) for tensor in call.inputs]
        call.args, call.kwargs = substitute(call.args, self._read), substitute(call.kwargs, self._read)
        if call.subgraph is not None:
            call.subgraph = self.opener.open(call.subgraph)
        self.calls.append(call)

    def _open(self, call: Call) -> bool:
        try:
            self.opener.check(self.graph, call)
        except UntraceableError as error:
            text = f"its inner layer stays in float: {error}"
            self.opener.reasons[call.path] = Reason(ReasonCode.CLOSED_BLOCK, text)
            return False
        (source,), (output,) = call.inputs, call.outputs
        fold = not _is_stepwise(call.operation.layer) or (id(source) in self.folded and None not in output.shape[1:])
        x = self._fold(source) if fold else self._read(source)
        shape = (None, *output.shape[2:]) if fold else output.shape
        model = call.operation.layer
        if isinstance(model, keras.Model):
            path = f"{call.path.removesuffix(call.name)}{model.name}"
            y = self._add(model, path, x, shape, output.dtype)
            self.calls[-1].subgraph = self.opener.graph_of(model, f"{path}/")
        else:
            y = self._add(self.opener.inner(call, x.shape), call.path, x, shape, output.dtype)
        (self.folded if fold else self.unfolded)[id(output)] = y
        self.opener.opened.add(self.calls[-1].path)
        return True

    def _read(self, tensor: Tensor) -> Tensor:
        """What stands for an old tensor in the new graph."""
        if id(tensor) not in self.unfolded:
            if tensor.producer is None or id(tensor) not in self.folded or not _is_time_distributed(tensor.producer):
                return tensor
            self.unfolded[id(tensor)] = self._reshape(tensor, self.folded[id(tensor)], tensor.shape, "unfold")
        return self.unfolded[id(tensor)]

    def _fold(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.folded:
            self.folded[id(tensor)] = self._reshape(tensor, self._read(tensor), (None, *tensor.shape[2:]), "fold")
        return self.folded[id(tensor)]

    def _reshape(self, tensor: Tensor, x: Tensor, shape: tuple[int | None, ...], what: str) -> Tensor:
        path = f"{tensor.producer.path if tensor.producer is not None else tensor.name}_{what}"
        operation = ReshapeOperation((-1, *shape[1:]), name=path.rpartition("/")[2])
        return self._add(operation, path, x, (None, *shape[1:]), tensor.dtype)

    def _add(self, operation: keras.Operation, path: str, x: Tensor, shape, dtype: str) -> Tensor:
        call = Call(operation, path, (x,), {}, [x], [])
        call.outputs = [Tensor(shape, dtype, path, producer=call)]
        self.calls.append(call)
        return call.outputs[0]
