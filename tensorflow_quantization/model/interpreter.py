"""`Interpreter`: run a `LayerGraph` call by call, with any function in place of any call.

The values that flow may be of any kind: tensors of the backend, symbolic tensors, descriptions of a tensor in a file.
The interpreter hands them from call to call and never looks into them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.inputs import model_inputs

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
#: Gets a call and what returns the value of a tensor; returns the arguments and keyword arguments of the call.
ReadArguments = Callable[[Call, Callable[[Tensor], Any]], Arguments]
#: Computes a call: gets the call, its arguments and its keyword arguments, and returns its outputs, in any structure
#: with as many values as the call has outputs.
CallFunction = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class Computed:
    """One call of one run.

    Attributes:
        call: the call.
        inputs: the values of `call.inputs`, in that order.
        outputs: the values of `call.outputs`, in that order.
    """

    call: Call
    inputs: list[Any]
    outputs: list[Any]


def infer(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    """The outputs of a layer or operation at inference: `training=False` if it takes `training`."""
    if isinstance(operation, keras.layers.Layer) and "training" in operation.call_signature_parameters:
        kwargs["training"] = False
    return operation(*args, **kwargs)


def compute(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call itself, at inference: what an `Interpreter` does with a call if nothing else is asked."""
    return infer(call.operation, *args, **kwargs)


def arguments_as_written(call: Call, read: Callable[[Tensor], Any]) -> Arguments:
    """The arguments of a call as the model was written, with values for its tensors; `read` returns these."""
    return substitute(call.args, read), substitute(call.kwargs, read)


def arguments_at_inference(call: Call, read: Callable[[Tensor], Any]) -> Arguments:
    """The arguments of a call at inference, with values for its tensors.

    Args:
        call: the call.
        read: returns the value of a tensor.

    Returns:
        Arguments and keyword arguments. `training` is left out: the function that computes the call decides on it
        (see `infer`). A keyword argument that is `None` by default is left out if it is `None`.
    """
    given = {name: value for name, value in call.kwargs.items() if name != "training" or not call.is_layer}
    if any(value is None for value in given.values()):
        parameters = inspect.signature(call.operation.call).parameters
        optional = {name for name in given if name not in parameters or parameters[name].default is None}
        given = {name: value for name, value in given.items() if value is not None or name not in optional}
    return substitute(call.args, read), substitute(given, read)


class Interpreter:
    """Runs a graph call by call.

    A nested model is one call; `graph.flatten()` has the calls within it. Each tensor is dropped after the last call
    that reads it, so memory does not grow with the depth of the graph.

    Args:
        graph: the graph; it must not change afterwards.
        read_arguments: what a function in place of a call gets: `arguments_at_inference`, or `arguments_as_written`
            for a function that writes the call anew.

    Example:

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
    ...     largest[computed.call.name] = max(float(keras.ops.max(y)) for y in computed.outputs)
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
        #: For each call the ids of the tensors that no later call reads.
        self.dead_after: list[list[int]] = [[] for _ in graph.calls]
        for key, index in last.items():
            if key not in outputs:
                self.dead_after[index].append(key)

    def run(
        self, inputs: Any, call_function: CallFunction = compute, watch: Callable[[Computed], None] | None = None
    ) -> Any:
        """The outputs of the graph, in the structure that the model returns.

        Args:
            inputs: one value for each of `graph.inputs`, in that order, in any structure; the model's own, or a list.
            call_function: called in place of every call.
            watch: called after each call with what it read and returned. What it keeps stays in memory.

        Raises:
            ValueError: `inputs` or what `call_function` returned has another number of values than needed; the message
                names the call.
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
        """Run the graph on each batch of data; memory does not grow with the batches.

        Args:
            batches: of data as `predict_on_batch` takes it, see `model_inputs`.
            call_function, watch: see `run`.

        Raises:
            ValueError: a batch does not fit the model's inputs.
        """
        for batch in batches:
            self.run(input_tensors(self.graph, batch), call_function, watch)

    def start(self, inputs: Any, call_function: CallFunction = compute) -> Run:
        """A run to be advanced call by call; for arguments and errors see `run`."""
        return Run(self, inputs, call_function)


class Run:
    """One run of an `Interpreter`, advanced by `step`; it holds the tensors that are still needed."""

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
        self._values = {id(tensor): value for tensor, value in zip(graph.inputs, flat, strict=True)}
        self._done = 0

    @property
    def finished(self) -> bool:
        """Whether every call is computed."""
        return self._done == len(self._graph.calls)

    def step(self) -> Computed:
        """Compute the next call, and drop the tensors that no later call reads."""
        call = self._graph.calls[self._done]
        args, kwargs = self._interpreter.read_arguments(call, self._read)
        outputs = _flatten(self._call_function(call, args, kwargs))
        if len(outputs) != len(call.outputs):
            raise ValueError(
                f"The function in place of {call.path!r} ({call.class_name}) returned {len(outputs)} values; it must "
                f"return {len(call.outputs)}, one for each output of the call."
            )
        computed = Computed(call, [self._read(tensor) for tensor in call.inputs], outputs)
        self._values.update((id(tensor), value) for tensor, value in zip(call.outputs, outputs, strict=True))
        for key in self._interpreter.dead_after[self._done]:
            del self._values[key]
        self._done += 1
        return computed

    def outputs(self) -> Any:
        """The outputs of the graph after its last call, in the structure that the model returns."""
        return substitute(self._graph.output_structure, self._read)

    def _read(self, tensor: Tensor) -> Any:
        return self._values[id(tensor)]


def _flatten(structure: Any) -> list[Any]:
    """The values in a structure, as `keras.tree.flatten` returns them.

    On PyTorch that function leaves reference cycles, which keep the values alive until garbage is collected. So it
    flattens only what is nested more than once.
    """
    if not tree.is_nested(structure):
        return [structure]
    if isinstance(structure, list | tuple) and not any(map(tree.is_nested, structure)):
        return list(structure)
    return tree.flatten(structure)


def input_tensors(graph: LayerGraph, x: Any) -> list[Any]:
    """Data as `predict` takes it as tensors of the backend, one for each input; for errors see `model_inputs`."""
    return [keras.ops.convert_to_tensor(array) for array in model_inputs(graph, x)]
