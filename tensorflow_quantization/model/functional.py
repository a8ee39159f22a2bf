"""The functional form of any Keras model; a subclassed model is traced."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.integer_inputs import integer_inputs
from tensorflow_quantization.model.keras_internals import (
    built_shapes,
    functional_of,
    is_functional,
    name_counters,
    origin,
    removing_nodes,
    sublayers,
)
from tensorflow_quantization.model.own_weights import OwnWeights


@contextlib.contextmanager
def as_functional(model: keras.Model, input_specs: Any) -> Iterator[Any]:
    """Yields the functional form of any Keras model, and then removes the nodes that tracing added to its layers.

    Args:
        model: the model, which stays unchanged.
        input_specs: a structure of tensors with the shapes and dtypes of the inputs of a subclassed model; `None`: the
            shapes that it was built with, and floats, or integers where only these work.

    Raises:
        ValueError: the model is not built, or its `call` cannot be traced.
    """
    if isinstance(model, keras.Sequential):
        functional = functional_of(model)
        if functional is None:
            raise ValueError(_not_built(model))
        yield functional
        return
    if is_functional(model):
        yield model
        return

    with removing_nodes(model):
        yield _trace_call(model, input_specs)


def _trace_call(model: keras.Model, input_specs: Any) -> keras.Model:
    """Returns the functional form of a subclassed model."""
    with names_of_its_own(model):
        args, kwargs = _subclassed_inputs(model, input_specs)
    inputs, own = tree.flatten((args, kwargs)), OwnWeights(model)
    # Keras does not keep the dtypes of the inputs; and code may do with a variable what it cannot do with a tensor.
    dtypes = [[]] if input_specs is not None else [[], *([x] for x in inputs), inputs]
    for integers, weights in itertools.product(dtypes, [own, None] if own.layers else [None]):
        with contextlib.suppress(ValueError):
            functional = _traced(model, args, kwargs, integers, weights)
            break
    else:
        return _traced(model, args, kwargs, [], None)  # raises the error about the code as it is
    found = integer_inputs(functional) if input_specs is None else []
    return _traced(model, args, kwargs, [*integers, *found], weights) if found else functional


def _traced(
    model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any], integers: list[Any], weights: OwnWeights | None
) -> keras.Model:
    """Returns the functional model of `call`.

    Args:
        model: the subclassed model.
        args, kwargs: the arguments of `call`, symbolic inputs.
        integers: the inputs to replace by inputs of integers.
        weights: the weights that `call` gets as tensors; `None`: it gets its variables.

    Raises:
        ValueError: `call` raised an error.
    """

    def as_integers(x: keras.KerasTensor) -> keras.KerasTensor:
        chosen = any(x is y for y in integers)
        return keras.Input(batch_shape=x.shape, dtype="int32", name=origin(x).operation.name) if chosen else x

    args, kwargs = tree.map_structure(as_integers, (args, kwargs))
    try:
        with names_of_its_own(model):
            with weights.as_tensors(tree.flatten((args, kwargs))[0]) if weights else contextlib.nullcontext():
                outputs = model.call(*args, **kwargs)
            return keras.Model(args[0] if args else kwargs, outputs, name=f"{model.name}_trace")
    except Exception as error:
        raise ValueError(
            f"The subclassed model {model.name!r} ({type(model).__name__}) cannot be traced: its `call` raised "
            f"{type(error).__name__} at {_where(error, model)}: {error}\nWrite that line with keras.layers or "
            "keras.ops on the tensor it gets (no Python control flow on values, no functions of one backend), or "
            "move it into a separate keras.layers.Layer, which is then left unchanged."
        ) from error


@contextlib.contextmanager
def names_of_its_own(model: keras.layers.Layer | None = None) -> Iterator[None]:
    """Resets the counters of Keras' automatic names within the context, so that each trace creates the same names.

    Args:
        model: the model or layer whose names stay reserved; `None` (default): none.
    """
    counters = name_counters()
    before = dict(counters)
    counters.clear()
    for layer in sublayers(model) if model is not None else ():
        base, _, number = layer.name.rpartition("_")
        counters[layer.name] = max(counters[layer.name], 1)
        if number.isdigit():
            counters[base] = max(counters[base], int(number) + 1)
    try:
        yield
    finally:
        counters.clear()
        counters.update(before)


def _subclassed_inputs(model: keras.Model, input_specs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns new inputs as arguments of `call`: one structure of inputs, or one keyword argument for each.

    An input has the name of its key in a dict, or of its argument of several, unless a layer has it.
    """
    taken = {layer.name for layer in sublayers(model)}

    def as_input(shape, dtype=None, name=None):
        named = isinstance(name, str) and name and "/" not in name and name not in taken
        return keras.Input(batch_shape=(None, *shape[1:]), dtype=dtype, name=name if named else None)

    if isinstance(input_specs, dict) and not any(map(tree.is_nested, input_specs.values())):
        return ({key: as_input(x.shape, x.dtype, key) for key, x in input_specs.items()},), {}
    if input_specs is not None:
        return (tree.map_structure(lambda x: as_input(x.shape, x.dtype), input_specs),), {}
    shapes = built_shapes(model)
    if not shapes:
        raise ValueError(_not_built(model))
    if len(shapes) > 1:
        arguments = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
        return (), {name: as_input(shape, name=name) for name, shape in arguments.items()}
    required = [
        p.name for p in inspect.signature(model.call).parameters.values() if p.default is p.empty and p.kind < 2
    ]
    if len(required) > 1:
        raise ValueError(
            f"`call` of the subclassed model {model.name!r} ({type(model).__name__}) takes {', '.join(required)}, but "
            f"only the shape of {required[0]!r} is known. Give the model a "
            f"build(self, {', '.join(f'{name}_shape' for name in required)}), or take one list of inputs."
        )
    (shape,) = shapes.values()
    if isinstance(shape, dict) and all(isinstance(each, list | tuple) for each in shape.values()):
        return ({key: as_input(each, name=key) for key, each in shape.items()},), {}
    return (tree.map_shape_structure(as_input, shape),), {}


def _not_built(model: keras.Model) -> str:
    return (
        f"Model {model.name!r} is not built: its input shape is not known. Call it once on a batch of data, or call "
        "model.build(input_shape), or give a Sequential model a keras.Input as its first layer."
    )


def _where(error: BaseException, model: keras.Model) -> str:
    """Returns the file and line of the innermost frame in the file that defines the model's class."""
    try:
        source = inspect.getsourcefile(type(model))
    except TypeError:
        source = None
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == source:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{source}, line {line}" if line else "an unknown line"
