"""Rebuild a Keras model from copies of its layers and weights, with some layers replaced."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
import numpy as np

from tensorflow_quantization.model.copying import copy_of
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, drops_training, substitute
from tensorflow_quantization.model.interpreter import Arguments, Interpreter, arguments_as_written
from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.keras_internals import (
    compile_arguments,
    constructor_arguments,
    is_functional,
    sublayers,
)
from tensorflow_quantization.model.stored_functions import store_activation
from tensorflow_quantization.text.warn import converting, warn_user

_TRAINING_METHODS = ("train_step", "test_step", "predict_step", "compute_loss")


#: Gets a call and a copy of its layer or operation, which has no weights yet. Returns the replacements, one or several
#: operations, which are called one after the other.
Replace = Callable[[Call, keras.Operation], Sequence[keras.Operation]]
#: Gets an input of the model. Returns layers to insert after it.
AfterInput = Callable[[Tensor], Sequence[keras.Operation]]
#: Gets a call and a tensor that it reads. Returns layers to insert between the two.
Before = Callable[[Call, Tensor], Sequence[keras.Operation]]


def rewrite(
    graph: LayerGraph,
    replace: Replace,
    after_input: AfterInput = lambda tensor: (),
    before: Before = lambda call, tensor: (),
    compiled: bool = True,
) -> keras.Model:
    """Returns a copy of a model with layers replaced. The copy shares nothing with the model.

    Nested models stay nested, and shared layers stay shared. Names, weights, `trainable` flags, the states of random
    seeds and the arguments of `compile` are copied. The copy of a subclassed model is functional.

    Args:
        graph: the graph of the model, not flattened.
        replace: returns the replacements of each call.
        after_input: returns the layers to insert after each input of the model; default none.
        before: returns the layers to insert before an operation of `keras.ops`, for each of its tensors; default none.
        compiled: compile the copy like the model; default `True`.

    Raises:
        ValueError: a layer cannot be copied from its config; the message names the layer.
    """
    rebuilder = _Rebuilder(graph, replace, after_input, before)
    model = rebuilder.rebuild(graph)
    if hasattr(graph.model, "output_names"):  # a Sequential has none
        # Losses may be given by these names. Keras does not save them: a loaded model has the names of its layers.
        model.output_names = list(graph.model.output_names)
    model.dtype_policy = graph.model.dtype_policy  # `compile` scales the loss by it, not by the layers' policies
    rebuilder.copy_variables()
    if compiled:
        _copy_compile_state(graph.model, model)
    return model


class _Rebuilder:
    def __init__(self, graph: LayerGraph, replace: Replace, after_input: AfterInput, before: Before):
        self.graph = graph
        self.replace = replace
        self.after_input = after_input
        self.before = before
        self.models: dict[int, keras.Model] = {}  # by id of the old model
        self.operations: dict[int, Sequence[keras.Operation]] = {}  # by id of the old operation
        self.owners: dict[int, Any] = {}  # by id of a call: the model or opened layer that it is in
        self.copies: list[tuple[keras.Operation, keras.Operation, str]] = []

    def rebuild(self, graph: LayerGraph) -> keras.Model:
        if id(graph.model) not in self.models:
            self.owners.update((id(call), graph.model) for call in graph.calls)
            sequential = isinstance(graph.model, keras.Sequential) and all(call.is_layer for call in graph.calls)
            build = self._sequential if sequential else self._functional
            self.models[id(graph.model)] = build(graph)
        return self.models[id(graph.model)]

    def _sequential(self, graph: LayerGraph) -> keras.Model:
        old = graph.model
        layers = [_input(graph.inputs[0]), *self._behind(graph, graph.inputs[0])]
        layers += [operation for call in graph.calls for operation in self._operations(call)]
        cls = type(old) if type(old).__init__ is keras.Sequential.__init__ else keras.Sequential
        _warn_of_lost_methods(old, cls)
        return cls(layers, name=old.name, trainable=old.trainable)

    def _functional(self, graph: LayerGraph) -> keras.Model:
        old = graph.model
        inputs = {id(tensor): _input(tensor) for tensor in graph.inputs}
        values = [_chain(self._behind(graph, t), inputs[id(t)]) for t in graph.inputs]
        outputs = Interpreter(graph, self._arguments).run(values, self._call)
        # `old` can be a layer that was opened, and is no model. A `call` of its own would call the float layers.
        kept = isinstance(old, keras.Model) and is_functional(old) and _is_called_like_model(type(old))
        cls = type(old) if kept else keras.Model
        _warn_of_lost_methods(old, cls)
        return cls(
            substitute(graph.input_structure, lambda tensor: inputs[id(tensor)]),
            self._outputs(graph, inputs, outputs),
            name=old.name,
            trainable=old.trainable,
        )

    def _arguments(self, call: Call, read: Callable[[Tensor], Any]) -> Arguments:
        """Returns the arguments of a call in the new model; `training` and `None` stay if the layer takes them."""

        @functools.cache  # an operation may read a tensor twice
        def operand(tensor: Tensor) -> Any:
            return _chain(self.before(call, tensor), read(tensor))

        args, kwargs = arguments_as_written(call, read if call.is_layer else operand)
        if drops_training(call):
            kwargs.pop("training", None)
        return args, kwargs

    def _call(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operations = self._operations(call)
        return _chain(operations[1:], operations[0](*args, **kwargs))

    def _outputs(self, graph: LayerGraph, inputs: dict[int, Any], outputs: Any) -> Any:
        """Returns the outputs of the new model: an input that the model returns is returned unchanged.

        A layer has the name of each of several outputs, also in a saved model, except a name that an operation still
        has: an operation that is followed by a quantizer of its output.
        """
        names = [tensor.producer.name for tensor in graph.outputs if tensor.producer is not None]
        named = graph is self.graph and len(graph.outputs) > 1 and not isinstance(graph.output_structure, dict)
        taken = {operation.name for call in graph.calls for operation in self._operations(call)}

        def output(tensor: Tensor, y: Any) -> Any:
            returned = _passed_through(tensor)
            if returned.producer is None or tensor.producer is None:
                return inputs[id(returned)]
            name = tensor.producer.name
            if not named or names.count(name) > 1 or name in taken:
                return y
            return keras.layers.Identity(name=name, dtype=tensor.dtype)(y)

        return keras.tree.map_structure(output, graph.output_structure, outputs)

    def _operations(self, call: Call) -> Sequence[keras.Operation]:
        """Returns the replacements of a call's operation; a shared layer has the same in all of its calls."""
        if call.subgraph is not None:
            return [self.rebuild(call.subgraph)]
        key = id(call.operation)
        if key not in self.operations:
            owner = self.owners[id(call)]
            copy = _copy_operation(call, owner)
            if not isinstance(owner, keras.Model):  # a model stores a name, for which a user registers the function
                store_activation(copy, call.outputs[0])
            if call.is_layer:
                self.copies.append((call.operation, copy, call.path))
            self.operations[key] = self.replace(call, copy)
        return self.operations[key]

    def _behind(self, graph: LayerGraph, tensor: Tensor) -> Sequence[keras.Operation]:
        return self.after_input(tensor) if graph is self.graph else ()

    def copy_variables(self) -> None:
        for old, new, path in self.copies:
            copy_variables(old, new, path)


def copy_variables(old: Any, new: Any, path: str) -> None:
    """Copies the values of all variables of a layer to a built copy of it.

    Args:
        old: the layer.
        new: the copy.
        path: the path of the layer, for the error message.

    Raises:
        ValueError: the copy has other variables.
    """
    _copy_low_rank_factors(old, new)
    if [v.shape for v in old.variables] != [v.shape for v in new.variables]:
        raise ValueError(
            f"Layer {path!r} ({type(old).__name__}) has {len(old.variables)} variables, but a copy made from "
            f"its config has {len(new.variables)}, or other shapes. Complete its get_config()."
        )
    for source, target in zip(old.variables, new.variables, strict=True):
        # Copied: a backend that donates buffers in training would destroy weights that both models share.
        with converting():
            target.assign(np.array(source.numpy()))
    for layer in (new, *sublayers(new)):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # the layer computes with tensors that this derives from its variables


def _copy_low_rank_factors(old: Any, new: Any) -> None:
    """Gives each layer in `new` the low-rank factors (LoRA) of the layer in `old`, which a config does not hold whole.

    The config of an attention layer has nothing about its projections, and Keras builds Dense and Conv layers from
    their config with `lora_alpha` equal to the rank.
    """
    for source, target in zip((old, *sublayers(old)), (new, *sublayers(new)), strict=False):
        if not getattr(source, "lora_enabled", False):
            continue
        if not target.lora_enabled:
            target.enable_lora(source.lora_rank)
        target.lora_alpha = source.lora_alpha


def _passed_through(tensor: Tensor) -> Tensor:
    """Returns the tensor that nested models pass through as `tensor`; `tensor` itself if a layer computes it."""
    call = tensor.producer
    if call is None or call.subgraph is None:
        return tensor
    inner = _passed_through(call.subgraph.outputs[tensor.index])
    if inner.producer is not None:
        return tensor
    return _passed_through(call.inputs[[id(t) for t in call.subgraph.inputs].index(id(inner))])


def _chain(operations: Sequence[keras.Operation], x):
    for operation in operations:
        x = operation(x)
    return x


def _copy_operation(call: Call, owner: Any) -> keras.Operation:
    """Returns a copy of the operation of a call; `owner` is the model or opened layer whose `call` calls it."""
    operation = call.operation
    try:
        copy = copy_of(operation)
    except Exception as error:
        found = (_remade(operation) or _part_of_copy(owner, operation)) if call.is_layer else None
        if found is None:
            _refuse(call, error)
        copy = found
        if not _can_be_stored(copy):
            warn_user(
                f"The config of layer {call.path!r} ({call.class_name}) is not what its __init__ takes, so a saved "
                ".keras file of the quantized model will not load. Let __init__ take **kwargs and pass them to "
                "super().__init__, and get_config() return all other arguments, or save the weights only."
            )
    copy.name = operation.name  # `get_config` may leave out the name
    return copy


def _refuse(call: Call, error: Exception) -> NoReturn:
    kind = "Layer" if call.is_layer else "Operation"
    unknown = re.search(r"Could not locate class '(\w+)'", str(error))  # of a layer in it, a cell for example
    if unknown:
        raise ValueError(
            f"{kind} {call.path!r} ({call.class_name}) holds a {unknown[1]}, which Keras does not find by its "
            "name. Write @keras.saving.register_keras_serializable() above the class."
        ) from error
    raise ValueError(
        f"{kind} {call.path!r} ({call.class_name}) cannot be copied from its config: {error}\n"
        "Give the class a get_config() that returns all arguments of its __init__."
    ) from error


def _can_be_stored(layer: keras.layers.Layer) -> bool:
    """Whether a layer can be made again from its config, as it is when a file is loaded."""
    try:
        type(layer).from_config(layer.get_config())
    except Exception:  # the code of the class may raise anything
        return False
    return True


def _remade(layer: keras.layers.Layer) -> keras.layers.Layer | None:
    """Returns a layer made from what is known of the arguments of a layer; `None` if one is not known."""
    arguments = _arguments(layer)
    if arguments is None:
        return None
    copy = type(layer)(**arguments)
    copy.trainable = layer.trainable
    if copy.dtype_policy != layer.dtype_policy:
        copy.dtype_policy = layer.dtype_policy
    return copy


def _part_of_copy(owner: Any, layer: keras.layers.Layer) -> keras.layers.Layer | None:
    """Returns the layer that stands for `layer` in a copy of `owner`, an opened layer whose own config is complete."""
    if isinstance(owner, keras.Model):
        return None
    try:
        twin: Any = copy_of(owner)
        twin.build_from_config(owner.get_build_config())
    except Exception:  # the code of the class may raise anything
        return None
    return next((new for old, new in zip(sublayers(owner), sublayers(twin), strict=False) if old is layer), None)


def _arguments(layer: keras.layers.Layer) -> dict[str, Any] | None:
    """Returns the arguments of a layer's `__init__`: from its config, as Keras noted them, or from its attributes.

    This is for a layer whose `get_config` does not fit its `__init__`. Keras cannot copy such a layer, but libraries
    and examples have them, since nobody tried to copy them before.

    Returns:
        The arguments by name; `None` if one is not known.
    """
    parameters = inspect.signature(type(layer).__init__).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    definer = next(base for base in type(layer).__mro__ if "get_config" in vars(base))
    try:
        own = {} if is_of_keras(definer) else layer.get_config()
    except Exception:  # it may read attributes that do not exist: nobody called it before
        own = {}
    # Keras notes the name of a policy, but no object: a config of what it noted can be stored.
    policy: Any = layer.dtype_policy
    if not isinstance(policy, keras.dtype_policies.DTypePolicyMap) and keras.dtype_policies.get(policy.name) == policy:
        policy = policy.name
    known = {**constructor_arguments(layer), **own, "name": layer.name}
    arguments: dict[str, Any] = {"dtype": policy, "trainable": layer.trainable} if takes_any else {}
    for name, parameter in parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in known:
            arguments[name] = known[name]
            continue
        value = getattr(layer, name, None)
        # The copy must not share a sublayer with the layer, and a method of this name is no argument.
        if not hasattr(layer, name) or isinstance(value, keras.layers.Layer) or inspect.ismethod(value):
            return None
        arguments[name] = value
    return arguments


def _is_called_like_model(cls: type) -> bool:
    """Whether the constructor of a model class is called like `keras.Model(inputs, outputs, name=...)`.

    Only then can the copy of a model have the same class.
    """
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        signature.bind("self", "inputs", "outputs", name="name", trainable=True)
    except TypeError:
        return False
    parameters = list(signature.parameters.values())[1:3]
    any_number = parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    return any_number or [parameter.name for parameter in parameters] == ["inputs", "outputs"]


def _input(tensor: Tensor):
    """Returns a new `keras.Input` like the input of the old model."""
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        name=tensor.name,
        sparse=getattr(tensor.source, "sparse", False),
        optional=getattr(tensor.source, "optional", False),
    )


def _warn_of_lost_methods(old: keras.layers.Layer, cls: type) -> None:
    if cls is type(old) or not isinstance(old, keras.Model):
        return
    lost = [name for name in _TRAINING_METHODS if getattr(type(old), name) is not getattr(cls, name)]
    if lost:
        warn_user(
            f"The quantized form of {type(old).__name__} {old.name!r} is a plain {cls.__name__} without its "
            f"{', '.join(lost)}. To keep them, give the class a constructor that takes (inputs, outputs, **kwargs), as "
            "keras.Model does, and no `call`."
        )


def _copy_compile_state(old: keras.Model, new: keras.Model) -> None:
    arguments = copied_compile_arguments(old)
    if arguments:
        new.compile(**arguments)


def copied_compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `compile`, with copies of the optimizer and the metrics; empty if it is not compiled."""

    def own(value):
        if isinstance(value, (keras.optimizers.Optimizer, keras.metrics.Metric)):
            return type(value).from_config(value.get_config())
        return value

    arguments = (compile_arguments(model) if model.compiled else None) or {}
    return {key: keras.tree.map_structure(own, value) for key, value in arguments.items()}
