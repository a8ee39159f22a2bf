"""Shapes and dtypes of what a layer returns, also where the layer states wrong ones.

Keras believes the `compute_output_shape` or `compute_output_spec` of a layer. A layer inside a custom layer may have a
wrong one, or one without all arguments of `call`, and nobody notices: only a functional model asks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, substitute
from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.keras_internals import sublayers


@contextlib.contextmanager
def with_true_specs(layer: keras.layers.Layer) -> Iterator[None]:
    """Within the context, the layers in a layer return symbolic tensors of the shapes that their `call` returns."""
    inner = [each for each in sublayers(layer) if not _computes_spec(type(each))]
    try:
        for each in inner:
            vars(each)["compute_output_spec"] = _true_spec(each)
        yield
    finally:
        for each in inner:
            del vars(each)["compute_output_spec"]


def states_its_output(call: Call) -> bool:
    """Returns whether Keras, calling the layer of a traced call, would return tensors like those of the call."""

    def spec(t: Any) -> keras.KerasTensor:
        return keras.KerasTensor(t.shape, t.dtype)

    try:
        stated = call.operation.compute_output_spec(*substitute(call.args, spec), **substitute(call.kwargs, spec))
        found = tree.flatten(stated)
        return len(found) == len(call.outputs) and all(map(_agree, found, call.outputs))
    except Exception:  # the code of the layer may raise anything
        return False


def _true_spec(layer: Any) -> Callable[..., Any]:
    stated_spec = layer.compute_output_spec

    def compute_output_spec(*args: Any, **kwargs: Any) -> Any:
        # What Keras' own layers state is true. But `EinsumDense` states a size only if `output_shape` has it.
        if is_of_keras(type(layer)):
            stated = stated_spec(*args, **kwargs)
            if not _has_unknown_size(stated) or _has_unknown_size((args, kwargs)):
                return stated
        try:
            computed = keras.Operation.compute_output_spec(layer, *args, **kwargs)
        except Exception:  # the code may compute with values, which only the layer itself knows how to leave out
            return stated_spec(*args, **kwargs)
        with contextlib.suppress(Exception):
            # It may know a size that Keras cannot compute.
            return tree.map_structure(_known, computed, stated_spec(*args, **kwargs))
        return computed

    return compute_output_spec


def _computes_spec(cls: type) -> bool:
    """Whether Keras runs the `call` of a layer of this class for its output shape, since the class states none."""
    base = keras.layers.Layer
    return (cls.compute_output_spec, cls.compute_output_shape) == (base.compute_output_spec, base.compute_output_shape)


def _known(computed: Any, stated: Any) -> Any:
    """A spec that has all sizes that either of two specs has."""
    if not isinstance(computed, keras.KerasTensor) or not _agree(computed, stated):
        return computed
    shape = [a if a is not None else b for a, b in zip(computed.shape, stated.shape, strict=True)]
    return keras.KerasTensor(shape, computed.dtype, sparse=computed.sparse)


def _agree(first: Any, second: Any) -> bool:
    """Whether two tensors or specs may be of the same tensor."""
    if first.dtype != second.dtype or len(first.shape) != len(second.shape):
        return False
    return all(a == b or a is None or b is None for a, b in zip(first.shape, second.shape, strict=True))


def _has_unknown_size(structure: Any) -> bool:
    return any(isinstance(x, keras.KerasTensor) and None in x.shape for x in tree.flatten(structure))
