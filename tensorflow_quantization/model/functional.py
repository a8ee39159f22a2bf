"""The functional form of any Keras model; a subclassed model is traced."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.keras_internals import (
    built_shapes,
    functional_of,
    is_functional,
    name_counters,
    removing_nodes,
    sublayers,
)


@contextlib.contextmanager
def as_functional(model: keras.Model, input_specs: Any) -> Iterator[Any]:
    """Yields the functional form of any Keras model, and then removes the nodes that tracing added to its layers.

    Args:
        model: the model, which stays unchanged.
        input_specs: a structure of tensors with the shapes and dtypes of the inputs of a subclassed model; `None`: the
            shapes that it was built with.

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

    with names_of_its_own(model):
        yield from _trace_call(model, input_specs)


def _trace_call(model: keras.Model, input_specs: Any) -> Iterator[Any]:
    args, kwargs = _subclassed_inputs(model, input_specs)
    with removing_nodes(model):
        try:
            outputs = model.call(*args, **kwargs)
            functional = keras.Model(args[0] if args else kwargs, outputs, name=f"{model.name}_trace")
        except Exception as error:
            raise ValueError(
                f"The subclassed model {model.name!r} ({type(model).__name__}) cannot be traced: its `call` raised "
                f"{type(error).__name__} at {_where(error, model)}: {error}\nWrite that line with keras.layers or "
                "keras.ops on the tensor it gets (no Python control flow on values, no functions of one backend), or "
                "move it into a separate keras.layers.Layer, which is then left unchanged."
            ) from error
        yield functional


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
