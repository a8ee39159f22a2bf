"""Shapes and dtypes of what a layer returns, also where the layer states wrong ones.

Keras believes the `compute_output_shape` or `compute_output_spec` of a layer. A layer inside a custom layer may have a
wrong one, or one without all arguments of `call`, and nobody notices: only a functional model asks for it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, substitute
from tensorflow_quantization.model.keras_classes import is_of_keras, is_of_package
from tensorflow_quantization.model.keras_internals import sublayers


@contextlib.contextmanager
def with_true_specs(layer: keras.layers.Layer) -> Iterator[None]:
    """Within the context, the layers in a layer return symbolic tensors of the shapes that their `call` returns.

    They may return `None` or numbers beside tensors, which Keras refuses: the graph has the tensors.
    """
    inner: list[tuple[Any, Any]] = [(each, type(each)) for each in sublayers(layer) if not is_of_package(type(each))]
    try:
        for each, cls in inner:
            object.__setattr__(each, "__class__", _with_true_spec(cls))
        yield
    finally:
        for each, cls in inner:
            object.__setattr__(each, "__class__", cls)


def states_its_output(call: Call) -> bool:
    """Returns whether Keras would state the shapes and dtypes that the outputs of a traced call have."""

    def spec(t: Any) -> keras.KerasTensor:
        return keras.KerasTensor(t.shape, t.dtype)

    try:
        stated = call.operation.compute_output_spec(*substitute(call.args, spec), **substitute(call.kwargs, spec))
        found = tree.flatten(stated)
        return len(found) == len(call.outputs) and all(map(_agree, found, call.outputs))
    except Exception:  # the code of the layer may raise anything
        return False


@functools.cache
def _with_true_spec(cls: Any) -> Any:
    """A subclass with true specs."""
    incomplete: dict[int, Any] = {}  # by id of a layer: what it returns, if not only tensors

    def compute_output_spec(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = _true_spec(self, cls, args, kwargs)
        tensors = [y for y in tree.flatten(outputs) if isinstance(y, keras.KerasTensor)]
        if len(tensors) == len(tree.flatten(outputs)):
            return outputs
        incomplete[id(self)] = outputs
        return tensors

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        incomplete.pop(id(self), None)
        outputs = cls.__call__(self, *args, **kwargs)
        if id(self) not in incomplete:
            return outputs
        tensors = iter(tree.flatten(outputs))
        return tree.map_structure(
            lambda y: next(tensors) if isinstance(y, keras.KerasTensor) else y, incomplete.pop(id(self))
        )

    methods = {"compute_output_spec": compute_output_spec, "__call__": __call__, "__module__": cls.__module__}
    return type(cls)(cls.__name__, (cls,), methods)


def _true_spec(layer: Any, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # What Keras' own layers state is true. But `EinsumDense` states a size only if `output_shape` has it.
    if is_of_keras(cls):
        stated = cls.compute_output_spec(layer, *args, **kwargs)
        if not _has_unknown_size(stated) or _has_unknown_size((args, kwargs)):
            return stated
    try:
        dense_args, dense_kwargs = tree.map_structure(_dense, (args, kwargs))
        computed = keras.Operation.compute_output_spec(layer, *dense_args, **dense_kwargs)
    except Exception:  # the code may compute with values, which only the layer itself knows how to leave out
        return cls.compute_output_spec(layer, *args, **kwargs)
    if not _computes_spec(cls):
        with contextlib.suppress(Exception):
            # It may know a size that Keras cannot compute.
            return tree.map_structure(_known, computed, cls.compute_output_spec(layer, *args, **kwargs))
    return computed


def _computes_spec(cls: Any) -> bool:
    """Whether Keras runs the `call` of a layer of this class for its output shape, since the class states none."""
    base = keras.layers.Layer
    return (cls.compute_output_spec, cls.compute_output_shape) == (base.compute_output_spec, base.compute_output_shape)


def _dense(x: Any) -> Any:
    """A spec that is not sparse: Keras takes a product of a tensor and a number for sparse."""
    return keras.KerasTensor(x.shape, x.dtype) if isinstance(x, keras.KerasTensor) else x


def _known(computed: Any, stated: Any) -> Any:
    """A spec that has all sizes that either of two specs has."""
    if not isinstance(computed, keras.KerasTensor) or not _agree(computed, stated):
        return computed
    shape = [a if a is not None else b for a, b in zip(computed.shape, stated.shape, strict=True)]
    return keras.KerasTensor(shape, computed.dtype)


def _agree(first: Any, second: Any) -> bool:
    """Whether two tensors or specs may be of the same tensor."""
    if first.dtype != second.dtype or len(first.shape) != len(second.shape):
        return False
    return all(a == b or a is None or b is None for a, b in zip(first.shape, second.shape, strict=True))


def _has_unknown_size(structure: Any) -> bool:
    return any(isinstance(x, keras.KerasTensor) and None in x.shape for x in tree.flatten(structure))
