"""Arrays that a layer's code makes from sizes, such as `ops.arange(ops.shape(x)[1])`: as tensors of the graph.

Keras computes such an array while it traces, and everything that the code computes from it, a causal mask for example:
the graph would only have the result, for one size. If the array is a tensor of the graph, so is all that follows.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.keras_internals import computes_spec, sublayers
from tensorflow_quantization.text.warn import converting


class MadeArray(keras.Operation):
    """Returns an array, whatever its input is. `model.sampling` replaces it by what computes the array from sizes.

    Args:
        array: the array.
    """

    def __init__(self, array: Any):
        super().__init__()
        self.array = array

    def call(self, x: Any) -> Any:
        return self.array

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.array.shape, keras.backend.standardize_dtype(self.array.dtype))


class MadeArrays:
    """Notes the arrays that code makes from numbers alone, in order.

    Attributes:
        arrays: the arrays.
        compared: whether the code compared a symbolic tensor by `==`, which Keras answers by identity: the graph lacks
            what the code computes from arrays.

    Args:
        as_tensors: the indices of the arrays that the code gets as symbolic tensors; default none.
    """

    def __init__(self, as_tensors: frozenset[int] = frozenset()):
        self._as_tensors = as_tensors
        self.arrays: list[Any] = []
        self.compared = False

    @contextlib.contextmanager
    def noted(self, tensor: keras.KerasTensor) -> Iterator[None]:
        """Within the context, the functions of `keras.ops` that make arrays note them, in this thread.

        Args:
            tensor: a symbolic tensor of the graph that is traced.
        """
        with _LOCK:
            thread, before = threading.get_ident(), {name: getattr(ops, name) for name in _FUNCTIONS}

            def noting(name: str) -> Callable[..., Any]:
                make = before[name]

                @functools.wraps(make)
                def function(*args: Any, **kwargs: Any) -> Any:
                    array = make(*args, **kwargs)
                    if threading.get_ident() != thread:
                        return array
                    # Of a layer that the code calls, Keras only computes the shape, on tensors of its own.
                    if computes_spec() or any(isinstance(x, keras.KerasTensor) for x in tree.flatten((args, kwargs))):
                        return array
                    self.arrays.append(array)
                    if len(self.arrays) - 1 not in self._as_tensors:
                        return array
                    return _FUNCTIONS[name](lambda x: MadeArray(x)(tensor), array, *args, **kwargs)

                return function

            def equal(one: Any, other: Any) -> Any:
                self.compared |= other is not None and one is not other and threading.get_ident() == thread
                return one is other

            own_equal = vars(keras.KerasTensor).get("__eq__")
            try:
                for name in before:
                    setattr(ops, name, noting(name))
                keras.KerasTensor.__eq__ = equal
                yield
            finally:
                if own_equal is None:
                    del keras.KerasTensor.__eq__
                else:
                    keras.KerasTensor.__eq__ = own_equal
                for name, function in before.items():
                    setattr(ops, name, function)

    def differing(self, other: MadeArrays) -> frozenset[int]:
        """Returns the indices of the arrays that are not the same in another trace of the code."""
        with converting():
            pairs = [[ops.convert_to_numpy(x) for x in pair] for pair in zip(self.arrays, other.arrays, strict=False)]
        return frozenset(i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b))


@contextlib.contextmanager
def without_symbols(layer: keras.layers.Layer) -> Iterator[None]:
    """After the context, layers have the attributes that they had if their code has put a symbolic tensor into one.

    Code may keep a mask for the next call of the same size.

    Args:
        layer: the layer that is traced, with the layers in it; Keras' own keep nothing.
    """
    layers = [each for each in (layer, *sublayers(layer)) if not is_of_keras(type(each))]
    before = [(each, {name: (x, _copied(x)) for name, x in vars(each).items()}) for each in layers]
    try:
        yield
    finally:
        for each, attributes in before:
            if not any(map(_has_symbol, list(vars(each).values()))):
                continue
            for name in vars(each).keys() - attributes.keys():
                del vars(each)[name]
            for name, (value, copied) in attributes.items():
                vars(each)[name] = value
                if isinstance(value, dict) and _has_symbol(value):
                    value.clear()
                    value.update(copied)
                elif isinstance(value, list) and _has_symbol(value):
                    value[:] = copied


def _copied(x: Any) -> Any:
    return dict(x) if isinstance(x, dict) else list(x) if isinstance(x, list) else None


def _has_symbol(x: Any) -> bool:
    """Whether an attribute holds a symbolic tensor, also in dicts, lists and tuples."""
    if isinstance(x, dict):
        return any(map(_has_symbol, x.values()))
    return any(map(_has_symbol, x)) if isinstance(x, list | tuple) else isinstance(x, keras.KerasTensor)


#: Only one thread at a time traces: the functions of `keras.ops` are all threads'.
_LOCK = threading.RLock()

#: Gets a function that makes a tensor of an array.
_AsTensor = Callable[[Any], Any]


def _arange(as_tensor: _AsTensor, array: Any, start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """As a formula of 0, 1, 2, ..., whose number alone depends on a size."""
    start, step = (0 if stop is None else start), step or 1
    exact = all(isinstance(x, int) for x in (start, step))
    y = as_tensor(ops.cast(_range(array.shape[0]), "int32" if exact else array.dtype))
    y = y * step if step != 1 else y
    y = y + start if start else y
    return ops.cast(y, array.dtype) if exact else y


def _eye(as_tensor: _AsTensor, array: Any, N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Any:  # noqa: N803
    rows, columns = (as_tensor(_range(size)) for size in array.shape)
    return ops.cast(ops.equal(rows[:, None] + k if k else rows[:, None], columns), array.dtype)


def _tri(as_tensor: _AsTensor, array: Any, N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Any:  # noqa: N803
    rows, columns = (as_tensor(_range(size)) for size in array.shape)
    return ops.cast(ops.greater_equal(rows[:, None] + k if k else rows[:, None], columns), array.dtype)


def _filled(as_tensor: _AsTensor, array: Any, *args: Any, **kwargs: Any) -> Any:
    return as_tensor(array)


_range = functools.partial(ops.arange, dtype="int32")

#: How the functions that make arrays make tensors, from ranges and from arrays of one value.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "arange": _arange,
    "eye": _eye,
    "full": _filled,
    "ones": _filled,
    "tri": _tri,
    "zeros": _filled,
}
