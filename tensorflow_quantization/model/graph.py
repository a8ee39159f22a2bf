"""`LayerGraph`: a read-only view of a Keras model as calls and tensors.

Everything downstream (planning, rewriting, export) reads this view and never Keras' own nodes, so that
Functional, Sequential, subclassed and nested models look the same to it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.functional import as_functional
from tensorflow_quantization.model.keras_classes import class_names_in_spec, keras_class_names
from tensorflow_quantization.model.keras_internals import nodes_in_order, origin
from tensorflow_quantization.text.messages import did_you_mean


@dataclass(eq=False)
class Tensor:
    """One tensor of the graph: a static shape (`None` where dynamic), a dtype and who produces it."""

    shape: tuple[int | None, ...]
    dtype: str
    name: str
    producer: Call | None = field(default=None, repr=False)
    index: int = 0  # among the producer's outputs
    source: keras.layers.InputLayer | None = field(default=None, repr=False)  # of a model input


@dataclass(eq=False)
class Call:
    """One call of a layer or of a `keras.ops` operation.

    `args` and `kwargs` are those of the call with `Tensor` in the place of Keras' tensors. `subgraph` is set when
    the operation is itself a model.
    """

    operation: keras.Operation
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor] = field(repr=False)
    subgraph: LayerGraph | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The layer's own name, without the models around it."""
        return self.operation.name

    @property
    def class_name(self) -> str:
        return type(self.operation).__name__

    @property
    def class_names(self) -> list[str]:
        """The names of Keras' classes among its class and its bases, nearest first: what a rule for a class may match.

        A class of the user's own is not among them: see `model.keras_classes`.
        """
        return keras_class_names(type(self.operation))

    @property
    def class_names_in_spec(self) -> list[str]:
        """The names by which an entry of a spec may speak of the class, nearest first, the user's own included."""
        return class_names_in_spec(type(self.operation))

    @property
    def is_layer(self) -> bool:
        return isinstance(self.operation, keras.layers.Layer)

    @property
    def arguments(self) -> dict[str, list[Tensor]]:
        """The tensors that are computed with, by the parameters of `call` and in their order; masks are left out."""
        bound = inspect.signature(self.operation.call).bind(*self.args, **self.kwargs).arguments
        named = {
            name: [x for x in tree.flatten(argument) if isinstance(x, Tensor)]
            for name, argument in bound.items()
            if not name.endswith("mask")
        }
        return {name: tensors for name, tensors in named.items() if tensors}

    @property
    def operands(self) -> list[Tensor]:
        """The same in one list."""
        return [tensor for tensors in self.arguments.values() for tensor in tensors]


class LayerGraph:
    """The calls of a model in topological order.

    Attributes:
        model: the Keras model the graph was read from.
        inputs, outputs: flat lists of `Tensor`, in the model's order.
        input_structure, output_structure: the same in the nesting that the model takes and returns.
        calls: list of `Call`; a nested model is one `Call` with a `subgraph` (see `flatten`).
    """

    def __init__(self, model, inputs, outputs, input_structure, output_structure, calls):
        self.model = model
        self.inputs: list[Tensor] = inputs
        self.outputs: list[Tensor] = outputs
        self.input_structure = input_structure
        self.output_structure = output_structure
        self.calls: list[Call] = calls
        self._consumers: dict[int, list[Call]] = {}
        for call in calls:
            for tensor in call.inputs:
                readers = self._consumers.setdefault(id(tensor), [])
                if call not in readers:
                    readers.append(call)

    @classmethod
    def trace(cls, model: keras.Model) -> LayerGraph:
        """Read `model` without changing it.

        Raises:
            TypeError: `model` is no Keras model.
            ValueError: the model has no known input shape (not built yet), or its `call` cannot be traced.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"Expected a keras.Model, got {type(model).__module__}.{type(model).__name__}. "
                "Models of Keras 2 (tf_keras) have to be rebuilt with Keras 3 first."
            )
        return _Tracer().trace(model, prefix="")

    @classmethod
    def read(cls, functional: keras.Model, prefix: str = "") -> LayerGraph:
        """Read a functional model; paths of calls start with `prefix`."""
        return _Tracer().read(functional, functional, prefix)

    def consumers(self, tensor: Tensor) -> list[Call]:
        """The calls that read `tensor`, in order, each once."""
        return self._consumers.get(id(tensor), [])

    def only_reader(self, tensor: Tensor) -> Call | None:
        """The call that reads `tensor`; `None` if several calls do, or the model returns it."""
        readers = self.consumers(tensor)
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def is_output(self, tensor: Tensor) -> bool:
        return any(tensor is output for output in self.outputs)

    def predecessors(self, call: Call) -> list[Call]:
        """The producers of the inputs of `call`, in input order; graph inputs have none."""
        return [tensor.producer for tensor in call.inputs if tensor.producer is not None]

    def successors(self, call: Call) -> list[Call]:
        found: list[Call] = []
        for tensor in call.outputs:
            found += [c for c in self.consumers(tensor) if c not in found]
        return found

    def flatten(self) -> LayerGraph:
        """The same graph with nested models replaced by their calls."""
        return _inline(self)

    def live(self) -> LayerGraph:
        """The same graph without the calls that no output depends on, as of a nested model's outputs nobody reads."""
        needed = {id(tensor) for tensor in self.outputs}
        calls: list[Call] = []
        for call in reversed(self.calls):
            if any(id(tensor) in needed for tensor in call.outputs):
                calls.append(call)
                needed.update(id(tensor) for tensor in call.inputs)
        return LayerGraph(
            self.model, self.inputs, self.outputs, self.input_structure, self.output_structure, calls[::-1]
        )

    def find(self, name: str) -> list[Call]:
        """The calls of the layer with this name or path.

        Raises:
            ValueError: there is none; the message holds the closest names.
        """
        found = [call for call in self.calls if name in (call.name, call.path)]
        if not found:
            raise ValueError(
                f"The model has no layer {name!r}.{did_you_mean(name, [call.name for call in self.calls])}"
            )
        return found

    def __repr__(self) -> str:
        rows = [f"LayerGraph of {self.model.name!r}: {len(self.calls)} calls"]
        for call in self.calls:
            inputs = ", ".join(t.producer.path if t.producer else t.name for t in call.inputs)
            shapes = ", ".join(str(t.shape) for t in call.outputs)
            rows.append(f"  {call.path} ({call.class_name}) <- {inputs} -> {shapes}")
        return "\n".join(rows)


class _Tracer:
    """Reads nested models once each, however often they are called."""

    def __init__(self):
        self.graphs: dict[int, LayerGraph] = {}

    def trace(self, model: keras.Model, prefix: str, input_specs: Any = None) -> LayerGraph:
        if id(model) not in self.graphs:
            with as_functional(model, input_specs) as functional:
                self.graphs[id(model)] = self.read(model, functional, prefix)
        return self.graphs[id(model)]

    def read(self, model, functional, prefix: str) -> LayerGraph:
        tensors: dict[int, Tensor] = {}
        for x in functional.inputs:
            layer = origin(x).operation  # `summary` shows its name; Keras numbers the tensor's anew each time
            tensors[id(x)] = Tensor(tuple(x.shape), x.dtype, layer.name, source=layer)
        calls = []
        for node in nodes_in_order(functional):
            if node.is_input:
                # A constant made without inputs still has to be computed by somebody.
                if any(id(x) not in tensors for x in node.outputs):
                    raise ValueError(f"Model {model.name!r} reads a tensor that none of its inputs produces.")
                continue
            calls.append(self._read_call(node, tensors, prefix))
        return LayerGraph(
            model,
            [tensors[id(x)] for x in functional.inputs],
            [tensors[id(x)] for x in functional.outputs],
            tree.map_structure(lambda x: tensors[id(x)], functional.input),
            tree.map_structure(lambda x: tensors[id(x)], functional.output),
            calls,
        )

    def _read_call(self, node, tensors: dict[int, Tensor], prefix: str) -> Call:
        def read(x):
            return tensors[id(x)] if isinstance(x, keras.KerasTensor) else x

        operation = node.operation
        path = f"{prefix}{operation.name}"
        call = Call(
            operation,
            path,
            tuple(tree.map_structure(read, node.arguments.args)),
            {key: tree.map_structure(read, value) for key, value in node.arguments.kwargs.items()},
            [tensors[id(x)] for x in node.input_tensors],
            [],
        )
        call.outputs = [
            Tensor(tuple(x.shape), x.dtype, x.name, producer=call, index=i) for i, x in enumerate(node.outputs)
        ]
        for x, tensor in zip(node.outputs, call.outputs, strict=True):
            tensors[id(x)] = tensor
        if isinstance(operation, keras.Model):
            specs = node.arguments.args[0] if node.arguments.args else None
            call.subgraph = self.trace(operation, f"{path}/", specs)
        return call


def substitute(structure: Any, replace: Callable[[Tensor], Any]) -> Any:
    """`structure` (arguments of a call) with each `Tensor` replaced."""
    return tree.map_structure(lambda x: replace(x) if isinstance(x, Tensor) else x, structure)


def _inline(graph: LayerGraph) -> LayerGraph:
    calls: list[Call] = []
    tensors: dict[int, Tensor] = {}

    def copy(graph: LayerGraph, tensors: dict[int, Tensor]) -> None:
        # `tensors` maps this graph's tensors to those of the flat graph; a nested model called twice is copied twice.
        for call in graph.calls:
            if call.subgraph is not None:
                inner = {id(x): tensors[id(y)] for x, y in zip(call.subgraph.inputs, call.inputs, strict=True)}
                copy(call.subgraph, inner)
                for x, y in zip(call.subgraph.outputs, call.outputs, strict=True):
                    tensors[id(y)] = inner[id(x)]
                continue
            new = Call(
                call.operation,
                call.path,
                substitute(call.args, lambda t: tensors[id(t)]),
                substitute(call.kwargs, lambda t: tensors[id(t)]),
                [tensors[id(t)] for t in call.inputs],
                [],
            )
            specs = _output_specs(call, new)
            new.outputs = [
                Tensor(shape, t.dtype, t.name, producer=new, index=t.index)
                for t, shape in zip(call.outputs, specs, strict=True)
            ]
            for old, copied in zip(call.outputs, new.outputs, strict=True):
                tensors[id(old)] = copied
            calls.append(new)

    for tensor in graph.inputs:
        tensors[id(tensor)] = dataclasses.replace(tensor)
    copy(graph, tensors)
    return LayerGraph(
        graph.model,
        [tensors[id(t)] for t in graph.inputs],
        [tensors[id(t)] for t in graph.outputs],
        substitute(graph.input_structure, lambda t: tensors[id(t)]),
        substitute(graph.output_structure, lambda t: tensors[id(t)]),
        calls,
    )


def _output_specs(call: Call, inlined: Call) -> list[tuple[int | None, ...]]:
    """Output shapes; a nested model may be called on shapes more definite than those it was built with."""
    if all(a.shape == b.shape for a, b in zip(call.inputs, inlined.inputs, strict=True)):
        return [t.shape for t in call.outputs]

    def spec(t: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(t.shape, t.dtype)

    specs = call.operation.compute_output_spec(*substitute(inlined.args, spec), **substitute(inlined.kwargs, spec))
    return [tuple(x.shape) for x in tree.flatten(specs)]
