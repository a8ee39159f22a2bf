"""The functional form of any Keras model, recorded by Keras itself where the model is subclassed."""

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
    """The functional form of any Keras model; nodes that tracing adds to its layers are removed again."""
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
                "move it into a keras.layers.Layer of its own, which is then left as it is."
            ) from error
        yield functional


@contextlib.contextmanager
def names_of_its_own(model: keras.layers.Layer | None = None) -> Iterator[None]:
    """Keras numbers what tracing makes as if nothing but the model's layers, if there is one, had been made before.

    So operations have the same names each time the model, or the function that has no layers, is traced.
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
    """Fresh inputs as the arguments of `call`: one structure of them, or each as an argument of its own."""

    def as_input(shape, dtype=None):
        return keras.Input(batch_shape=(None, *shape[1:]), dtype=dtype)

    if input_specs is not None:
        return (tree.map_structure(lambda x: as_input(x.shape, x.dtype), input_specs),), {}
    shapes = built_shapes(model)
    if not shapes:
        raise ValueError(_not_built(model))
    if len(shapes) > 1:
        return (), {name.removesuffix("_shape"): as_input(shape) for name, shape in shapes.items()}
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
    return (tree.map_shape_structure(as_input, shape),), {}


def _not_built(model: keras.Model) -> str:
    return (
        f"Model {model.name!r} is not built: its input shape is not known. Call it once on a batch of data, or call "
        "model.build(input_shape), or give a Sequential model a keras.Input as its first layer."
    )


def _where(error: BaseException, model: keras.Model) -> str:
    """File and line of the innermost frame of the user's model code."""
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
