"""`LayerGraph`: a read-only view of a Keras model as calls and tensors.

Planning, rewriting and export read this view and never Keras' nodes. So Functional, Sequential, subclassed and nested
models look the same to them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.functional import as_functional
from tensorflow_quantization.model.keras_classes import class_names_in_spec, keras_class_names
from tensorflow_quantization.model.keras_internals import is_functional, nodes_in_order, origin
from tensorflow_quantization.model.own_weights import OwnWeight
from tensorflow_quantization.model.sizes import Sized, essence
from tensorflow_quantization.text.messages import did_you_mean, is_path

#: Operations of `keras.ops` that combine a tensor with a constant, element by element.
_ELEMENTWISE = frozenset({"Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"})


@dataclass(eq=False)
class Tensor:
    """One tensor of a `LayerGraph`. Two tensors are equal only if they are the same object.

    Examples:
        >>> graph = LayerGraph.trace(model)
        >>> graph.inputs[0]
        Tensor(shape=(None, 8, 8, 3), dtype='float32', name='image', index=0)

    Attributes:
        shape: tuple of ints, with the batch axis; `None` for a dynamic axis.
        dtype: str, such as "float32".
        name: str; of a model input, the name of its InputLayer.
        producer: the `Call` that computes the tensor; `None` for a model input.
        index: int, the position among the outputs of `producer`.
        source: the `keras.layers.InputLayer` of a model input; `None` for any other tensor.
    """

    shape: tuple[int | None, ...]
    dtype: str
    name: str
    producer: Call | None = field(default=None, repr=False)
    index: int = 0
    source: keras.layers.InputLayer | None = field(default=None, repr=False)


@dataclass(eq=False)
class Call:
    """One call of a layer or of an operation of `keras.ops`. A layer that is called twice has two calls.

    Examples:
        >>> (call,) = LayerGraph.trace(model).find("conv")
        >>> call.path, call.class_name, call.inputs[0].name, call.outputs[0].shape
        ('conv', 'Conv2D', 'image', (None, 6, 6, 4))

    Attributes:
        operation: the `keras.layers.Layer` or `keras.Operation`.
        path: str, the names of the nested models and of the operation: "encoder/conv".
        args: tuple, the positional arguments of the call, with a `Tensor` for each Keras tensor.
        kwargs: dict, the keyword arguments, likewise.
        inputs: list of `Tensor`, all tensors among the arguments.
        outputs: list of `Tensor`, the returned tensors.
        subgraph: the `LayerGraph` of a nested model; `None` for any other operation.
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
        """The name of the operation, without the names of nested models."""
        return self.operation.name

    @property
    def class_name(self) -> str:
        """The name of the class of the operation."""
        return type(essence(self.operation)).__name__

    @property
    def class_names(self) -> list[str]:
        """The names of Keras' classes among the operation's class and its bases, nearest first. Rules match these.

        Custom classes are left out, see `model.keras_classes`.
        """
        return keras_class_names(type(essence(self.operation)))

    @property
    def class_names_in_spec(self) -> list[str]:
        """The class names, custom classes included, that an entry of a spec matches; nearest class first."""
        return class_names_in_spec(type(self.operation))

    @property
    def is_layer(self) -> bool:
        """Whether the operation is a layer, and not an operation of `keras.ops`."""
        return isinstance(self.operation, keras.layers.Layer)

    @property
    def arguments(self) -> dict[str, list[Tensor]]:
        """The operands by the parameter of `call` that takes them, in order; no masks, sizes and constants."""
        signature = inspect.signature(self.operation.call)
        # Keras takes `training` for any layer, and drops it for a layer without this parameter.
        kwargs = {name: x for name, x in self.kwargs.items() if name != "training" or name in signature.parameters}
        given = signature.bind(*self.args, **kwargs).arguments
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(parameter.name, {}))
        named = {
            name: [x for x in tree.flatten(argument) if isinstance(x, Tensor) and not self.has_constant(x)]
            for name, argument in given.items()
            if not name.endswith("mask") and not (name == "sizes" and isinstance(self.operation, Sized))
        }
        return {name: tensors for name, tensors in named.items() if tensors}

    @property
    def operands(self) -> list[Tensor]:
        """The operands, the tensors of `arguments`, as one list."""
        return [tensor for tensors in self.arguments.values() for tensor in tensors]

    def has_constant(self, tensor: Tensor) -> bool:
        """Whether an input is a weight that an elementwise operation combines with another tensor, like a constant."""
        elementwise = not self.is_layer and self.class_name in _ELEMENTWISE
        return elementwise and _is_weight(tensor) and not all(map(_is_weight, self.inputs))


def _is_weight(tensor: Tensor) -> bool:
    return tensor.producer is not None and isinstance(tensor.producer.operation, OwnWeight)


class LayerGraph:
    """The calls of a model in topological order. Create it with `LayerGraph.trace`.

    Examples:
        >>> graph = LayerGraph.trace(model)
        >>> [call.name for call in graph.calls]
        ['conv', 'pool', 'scores']
        >>> [call.name for call in graph.consumers(graph.inputs[0])]
        ['conv']

    Attributes:
        model: the `keras.Model` that the graph was read from.
        inputs, outputs: lists of `Tensor`, in the order of the model.
        input_structure, output_structure: the same tensors, nested as the model takes and returns them.
        calls: list of `Call`; a nested model is one `Call` with a `subgraph`, see `flatten`.
    """

    def __init__(self, model, inputs, outputs, input_structure, output_structure, calls):
        self.model = model
        self.inputs: list[Tensor] = inputs
        self.outputs: list[Tensor] = outputs
        self.input_structure = input_structure
        self.output_structure = output_structure
        self.calls: list[Call] = calls
        self._times_called = Counter(id(call.operation) for call in calls)
        self._consumers: dict[int, list[Call]] = {}
        for call in calls:
            for tensor in call.inputs:
                readers = self._consumers.setdefault(id(tensor), [])
                if call not in readers:
                    readers.append(call)

    @classmethod
    def trace(cls, model: keras.Model, prefix: str = "") -> LayerGraph:
        """Returns the graph of `model`, which stays unchanged.

        Args:
            model: a built `keras.Model` of any kind. The `call` of a subclassed model runs on symbolic tensors.
            prefix: str, put before the path of each call; default none.

        Raises:
            TypeError: `model` is no `keras.Model`.
            ValueError: the input shape is unknown, since the model is not built, or `call` cannot be traced.
        """
        check_is_model(model)
        return _Tracer().trace(model, prefix)

    @classmethod
    def read(cls, functional: keras.Model, prefix: str = "") -> LayerGraph:
        """Returns the graph of a functional model.

        Args:
            functional: a model made of `inputs` and `outputs`.
            prefix: str, put before the path of each call; default none.
        """
        return _Tracer().read(functional, functional, prefix)

    def consumers(self, tensor: Tensor) -> list[Call]:
        """Returns the calls that read `tensor`, each once, in topological order."""
        return self._consumers.get(id(tensor), [])

    def only_reader(self, tensor: Tensor) -> Call | None:
        """Returns the call that reads `tensor`; `None` if several calls or none read it, or the model returns it."""
        readers = self.consumers(tensor)
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def is_output(self, tensor: Tensor) -> bool:
        """Returns whether the model returns `tensor`."""
        return any(tensor is output for output in self.outputs)

    def is_only_call(self, call: Call) -> bool:
        """Returns whether no other call is of the same layer or operation."""
        return self._times_called[id(call.operation)] == 1

    def predecessors(self, call: Call) -> list[Call]:
        """Returns the calls that produce the inputs of `call`, in the order of the inputs; model inputs have none."""
        return [tensor.producer for tensor in call.inputs if tensor.producer is not None]

    def successors(self, call: Call) -> list[Call]:
        """Returns the calls that read an output of `call`, each once, in the order of the outputs."""
        found: list[Call] = []
        for tensor in call.outputs:
            found += [c for c in self.consumers(tensor) if c not in found]
        return found

    def flatten(self) -> LayerGraph:
        """Returns a copy of the graph in which the calls of nested models replace the nested models."""
        return _inline(self)

    def live(self) -> LayerGraph:
        """Returns the graph without the calls that no output depends on.

        `flatten` can leave such calls: a nested model may have outputs that nothing reads.
        """
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
        """Returns the calls of the layer with this name or path; a shared layer has several.

        Raises:
            ValueError: no layer has this name; the message proposes the closest names.
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
    """Reads models. A nested model is read once, however often it is called."""

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
            layer = origin(x).operation  # tensors take its name: Keras renumbers tensor names in each trace
            tensors[id(x)] = Tensor(tuple(x.shape), x.dtype, layer.name, source=layer)
        calls = []
        for node in nodes_in_order(functional):
            if node.is_input:
                # An input node that is no input of the model: no call would compute this tensor.
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
        has_graph = is_functional(operation) or isinstance(operation, keras.Sequential)
        # A subclassed model that takes several arguments is a layer made of layers, as any other.
        if isinstance(operation, keras.Model) and (has_graph or _takes_one_argument(call)):
            specs = node.arguments.args[0] if node.arguments.args else None
            if has_graph and call.kwargs.pop("mask", None) is not None:
                # Keras adds the masks of the inputs; the layers inside get them with the inputs.
                call.inputs = [x for x in tree.flatten((call.args, call.kwargs)) if isinstance(x, Tensor)]
            call.subgraph = self.trace(operation, f"{path}/", specs)
        return call


def _takes_one_argument(call: Call) -> bool:
    """Whether all tensors that a call passes are in its first argument."""
    return {id(x) for x in tree.flatten(call.args[:1])} >= {id(x) for x in call.inputs}


def substitute(structure: Any, replace: Callable[[Tensor], Any]) -> Any:
    """Returns `structure`, the arguments of a call for example, with each `Tensor` x replaced by `replace(x)`."""
    return tree.map_structure(lambda x: replace(x) if isinstance(x, Tensor) else x, structure)


def _inline(graph: LayerGraph) -> LayerGraph:
    calls: list[Call] = []
    tensors: dict[int, Tensor] = {}

    def copy(graph: LayerGraph, tensors: dict[int, Tensor]) -> None:
        # `tensors` maps the tensors of `graph` to tensors of the flat graph. Each call of a nested model needs its own
        # copy of the calls in it, since its inputs differ.
        for call in graph.calls:
            if call.subgraph is not None:
                _check_one_tensor_per_input(call, call.subgraph)
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


def drops_training(call: Call) -> bool:
    """Returns whether `call` of a layer does not take `training`: Keras drops it, but not for `compute_output_spec`."""
    return call.is_layer and "training" not in inspect.signature(call.operation.call).parameters


def _check_one_tensor_per_input(call: Call, subgraph: LayerGraph) -> None:
    if len(call.inputs) != len(subgraph.inputs):
        names = ", ".join(tensor.name for tensor in subgraph.inputs)
        raise ValueError(
            f"Nested model {call.path!r} has {len(subgraph.inputs)} inputs ({names}), and a call passes "
            f"{len(call.inputs)} symbolic tensors. Pass one for each input: return a constant, or a weight, from the "
            "`call` of a layer."
        )


def _output_specs(call: Call, inlined: Call) -> list[tuple[int | None, ...]]:
    """Returns the output shapes of the copy: its inputs may have fewer dynamic axes than the nested model's inputs."""
    if all(a.shape == b.shape for a, b in zip(call.inputs, inlined.inputs, strict=True)):
        return [t.shape for t in call.outputs]

    def spec(t: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(t.shape, t.dtype)

    kwargs = {name: x for name, x in inlined.kwargs.items() if name != "training" or not drops_training(call)}
    specs = call.operation.compute_output_spec(*substitute(inlined.args, spec), **substitute(kwargs, spec))
    shapes = [tuple(x.shape) for x in tree.flatten(specs)]
    if len({t.shape[0] for t in inlined.inputs if t.shape}) > 1:
        # A batch of one is broadcast, but `Attention` says that its output has the batch of the queries.
        shapes = [t.shape[:1] + shape[1:] for t, shape in zip(call.outputs, shapes, strict=True)]
    return shapes


def check_is_model(model: object) -> None:
    """Raises: TypeError: `model` is no `keras.Model`; the message says what it is."""
    if isinstance(model, keras.Model):
        return
    cls = type(model)
    hint = ""
    if is_path(model):
        got, hint = f"the path {str(model)!r}", " Load it: keras.saving.load_model(path)."
    elif isinstance(model, type):
        got, hint = f"the class {model.__name__}", f" Pass an instance: {model.__name__}(...)."
    elif isinstance(model, keras.layers.Layer):
        got = f"the layer {model.name!r} ({cls.__name__})"
        hint = " Make a model of it: keras.Sequential([keras.Input(shape), layer])."
    elif cls.__module__.partition(".")[0] in ("tf_keras", "tensorflow"):
        got, hint = f"{cls.__module__}.{cls.__name__}", " Rebuild a model of Keras 2 (tf_keras) with Keras 3."
    else:
        got = cls.__name__
    raise TypeError(f"Expected a keras.Model, got {got}.{hint}")
