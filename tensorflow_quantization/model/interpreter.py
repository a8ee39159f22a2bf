"""`Interpreter`: runs a `LayerGraph` call by call; a function can replace any call.

The values can be of any type: tensors of the backend, symbolic tensors, descriptions of tensors in a file. The
interpreter only passes them from call to call.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.inputs import model_inputs

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
#: Gets a call and a function that returns the value of a tensor. Returns the arguments and keyword arguments.
ReadArguments = Callable[[Call, Callable[[Tensor], Any]], Arguments]
#: Computes a call. Gets the call, its arguments and its keyword arguments. Returns one value for each output of the
#: call, in any structure.
CallFunction = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class Computed:
    """A computed call.

    Attributes:
        call: the call.
        inputs: list, the values of `call.inputs`, in the same order.
        outputs: list, the values of `call.outputs`, in the same order.
    """

    call: Call
    inputs: list[Any]
    outputs: list[Any]


def infer(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    """Returns the outputs of a layer or operation at inference: with `training=False` if it takes `training`."""
    if isinstance(operation, keras.layers.Layer) and "training" in operation.call_signature_parameters:
        kwargs["training"] = False
    return operation(*args, **kwargs)


def compute(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns the outputs of a call at inference: the default `CallFunction` of an `Interpreter`."""
    return infer(call.operation, *args, **kwargs)


def arguments_as_written(call: Call, read: Callable[[Tensor], Any]) -> Arguments:
    """Returns the arguments of a call as in the model's code, with `read(tensor)` for each of its tensors."""
    return substitute(call.args, read), substitute(call.kwargs, read)


def arguments_at_inference(call: Call, read: Callable[[Tensor], Any]) -> Arguments:
    """Returns the arguments of a call at inference, with `read(tensor)` for each of its tensors.

    Args:
        call: the call.
        read: returns the value of a tensor.

    Returns:
        (arguments, keyword arguments). `training` is left out, since the function that computes the call sets it, see
        `infer`. A keyword argument that is `None`, and is `None` by default, is left out.
    """
    given = {name: value for name, value in call.kwargs.items() if name != "training" or not call.is_layer}
    if any(value is None for value in given.values()):
        parameters = inspect.signature(call.operation.call).parameters
        optional = {name for name in given if name not in parameters or parameters[name].default is None}
        given = {name: value for name, value in given.items() if value is not None or name not in optional}
    return substitute(call.args, read), substitute(given, read)


class Interpreter:
    """Runs a graph call by call.

    A nested model is one call; pass `graph.flatten()` to run the calls within it. A tensor is freed after the last call
    that reads it, so memory does not grow with the depth of the graph.

    Args:
        graph: the graph; it must not change later.
        read_arguments: the arguments that a call gets: `arguments_at_inference` (default), or `arguments_as_written` to
            rebuild the call.

    Examples:

    >>> import keras
    >>> import numpy as np
    >>> from tensorflow_quantization.model.graph import LayerGraph
    >>> from tensorflow_quantization.model.interpreter import Interpreter, compute
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.ReLU(name="relu")(keras.layers.Dense(2, name="dense")(inputs)))
    >>> interpreter = Interpreter(LayerGraph.trace(model).flatten())
    >>> x = keras.ops.ones((3, 4))
    >>> bool(keras.ops.all(interpreter.run(x) == model(x)))
    True

    Another function in place of one call:

    >>> def negated(call, args, kwargs):
    ...     y = compute(call, args, kwargs)
    ...     return -y if call.name == "dense" else y
    >>> interpreter.run(x, negated).shape == (3, 2)
    True

    Data in batches, and a look at each call:

    >>> largest = {}
    >>> def watch(computed):
    ...     largest[computed.call.name] = max(keras.ops.convert_to_numpy(y).max() for y in computed.outputs)
    >>> interpreter.run_batches([np.ones((3, 4)), np.zeros((3, 4))], watch=watch)
    >>> list(largest)
    ['dense', 'relu']
    """

    def __init__(self, graph: LayerGraph, read_arguments: ReadArguments = arguments_at_inference):
        self.graph = graph
        self.read_arguments = read_arguments
        last: dict[int, int] = {}
        for index, call in enumerate(graph.calls):
            last.update((id(tensor), index) for tensor in [*call.outputs, *call.inputs])
        outputs = {id(tensor) for tensor in graph.outputs}
        #: For each call, the ids of the tensors that can be freed after it.
        self.dead_after: list[list[int]] = [[] for _ in graph.calls]
        for key, index in last.items():
            if key not in outputs:
                self.dead_after[index].append(key)

    def run(
        self, inputs: Any, call_function: CallFunction = compute, watch: Callable[[Computed], None] | None = None
    ) -> Any:
        """Returns the outputs of the graph, in the structure that the model returns.

        Args:
            inputs: one value for each of `graph.inputs`, in the same order, in any structure: a list, or the model's.
            call_function: computes each call; by default the call itself, at inference.
            watch: gets each `Computed` call; default none. Values that it keeps stay in memory.

        Raises:
            ValueError: `inputs`, or the result of `call_function`, has a wrong number of values; the message names the
                call.
        """
        run = self.start(inputs, call_function)
        del inputs  # the run drops them after their last reader
        while not run.finished:
            if watch is None:
                run.step()
            else:
                watch(run.step())
        return run.outputs()

    def run_batches(
        self,
        batches: Iterable[Any],
        call_function: CallFunction = compute,
        watch: Callable[[Computed], None] | None = None,
    ) -> None:
        """Runs the graph on each batch; memory does not grow with the number of batches.

        Args:
            batches: each as `predict_on_batch` takes it, see `model_inputs`.
            call_function, watch: see `run`.

        Raises:
            ValueError: a batch does not fit the inputs of the model.
        """
        for batch in batches:
            self.run(input_tensors(self.graph, batch), call_function, watch)

    def start(self, inputs: Any, call_function: CallFunction = compute) -> Run:
        """Returns a `Run`, whose `step` computes one call; arguments and errors as in `run`."""
        return Run(self, inputs, call_function)


class Run:
    """One run of an `Interpreter`; `step` computes one call. It holds only the tensors that are still needed."""

    def __init__(self, interpreter: Interpreter, inputs: Any, call_function: CallFunction):
        graph, flat = interpreter.graph, _flatten(inputs)
        if len(flat) != len(graph.inputs):
            names = ", ".join(tensor.name for tensor in graph.inputs)
            raise ValueError(
                f"Model {graph.model.name!r} has {len(graph.inputs)} inputs ({names}), got {len(flat)} values. "
                "Pass one value for each input, in this order."
            )
        self._interpreter = interpreter
        self._graph = graph
        self._call_function = call_function
        self._held = {id(tensor): value for tensor, value in zip(graph.inputs, flat, strict=True)}
        self._done = 0

    @property
    def finished(self) -> bool:
        """Whether all calls are computed."""
        return self._done == len(self._graph.calls)

    def fork(self, call_function: CallFunction | None = None) -> Run:
        """Returns a run that goes on from here on its own, and computes its calls by `call_function`, or as this."""
        other = copy.copy(self)
        other._call_function = call_function or self._call_function
        other._held = dict(self._held)
        return other

    def arguments(self) -> Arguments:
        """Returns the arguments and keyword arguments of the next call, which is not computed."""
        return self._interpreter.read_arguments(self._graph.calls[self._done], self._read)

    def value(self, tensor: Tensor) -> Any:
        """Returns the value of a tensor that is computed, and that a later call reads or the graph returns."""
        return self._read(tensor)

    def step(self) -> Computed:
        """Computes and returns the next call, and frees the tensors that no later call reads."""
        call = self._graph.calls[self._done]
        args, kwargs = self.arguments()
        outputs = _flatten(self._call_function(call, args, kwargs))
        if len(outputs) != len(call.outputs):
            raise ValueError(
                f"The function in place of {call.path!r} ({call.class_name}) returned {len(outputs)} values; it must "
                f"return {len(call.outputs)}, one for each output of the call."
            )
        computed = Computed(call, [self._read(tensor) for tensor in call.inputs], outputs)
        self._held.update((id(tensor), value) for tensor, value in zip(call.outputs, outputs, strict=True))
        for key in self._interpreter.dead_after[self._done]:
            del self._held[key]
        self._done += 1
        return computed

    def outputs(self) -> Any:
        """Returns the outputs of the graph, in the structure that the model returns; call it when `finished`."""
        return substitute(self._graph.output_structure, self._read)

    def _read(self, tensor: Tensor) -> Any:
        return self._held[id(tensor)]


def _flatten(structure: Any) -> list[Any]:
    """Returns what `keras.tree.flatten` returns.

    On PyTorch, `keras.tree.flatten` leaves reference cycles, which keep the values alive until the next garbage
    collection. So it is called for nested structures only.
    """
    if not tree.is_nested(structure):
        return [structure]
    if isinstance(structure, list | tuple) and not any(map(tree.is_nested, structure)):
        return list(structure)
    return tree.flatten(structure)


def input_tensors(graph: LayerGraph, x: Any) -> list[Any]:
    """Returns `model_inputs(graph, x)` as tensors of the backend."""
    return [keras.ops.convert_to_tensor(array) for array in model_inputs(graph, x)]
