"""Sizes that are known only at run time: a formula of the sizes of a tensor, and the operations that compute with them.

`model.sampling` puts these operations into a graph. They are operations of Keras, so the graph runs on every backend.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

#: A place of a size in the attributes or arguments of an operation: the name of an attribute or the index of an
#: argument, then the index of each element: ("newshape", 1), or (1, 0, "stop") for a slice.
Place = tuple[str | int, ...]

#: The largest divisor that is looked for.
_LARGEST_DIVISOR = 64
_SLICE = ("start", "stop", "step")


@dataclass(frozen=True)
class Formula:
    """((product of some sizes of a tensor) * factor + offset) // divisor, and the remainder of `modulo` unless 0.

    Examples:
        >>> Formula((1,), offset=1, divisor=2).of((None, 7, 3))
        4
    """

    axes: tuple[int, ...]
    factor: int = 1
    offset: int = 0
    divisor: int = 1
    modulo: int = 0

    def of(self, shape: Any) -> Any:
        """Returns the size for a shape, whose sizes are ints, scalar tensors or arrays."""
        size = shape[self.axes[0]]
        for axis in self.axes[1:]:
            size = size * shape[axis]
        if self.factor != 1 or self.offset:
            size = size * self.factor + self.offset
        if self.divisor != 1:
            size = size // self.divisor
        return size % self.modulo if self.modulo else size


def find_formula(sizes: np.ndarray, shapes: Sequence[np.ndarray]) -> tuple[int, Formula] | None:
    """Returns the simplest formula that computes a size from the shape of a tensor in all samples.

    Args:
        sizes: the size in each sample, (samples,).
        shapes: for each tensor its shapes, (samples, rank). Of equal formulas, the one of the first tensor is returned.

    Returns:
        (index of the tensor, formula); `None` if no formula fits.
    """
    for candidates in (_products, _multiples, _sums, _quotients, _remainders):
        for index, shape in enumerate(shapes):
            found = next((f for f in candidates(sizes, shape) if np.array_equal(f.of(shape.T), sizes)), None)
            if found is not None:
                return index, found
    return None


def _varying(shape: np.ndarray) -> list[int]:
    return [axis for axis in range(shape.shape[1]) if np.ptp(shape[:, axis])]


def _products(sizes: np.ndarray, shape: np.ndarray) -> Iterator[Formula]:
    for count in range(1, shape.shape[1] + 1):
        yield from map(Formula, itertools.combinations(_varying(shape), count))


def _multiples(sizes: np.ndarray, shape: np.ndarray) -> Iterator[Formula]:
    for plain in _products(sizes, shape):
        size = int(plain.of(shape[0]))
        common = math.gcd(int(sizes[0]), size)
        if size and common and (sizes[0] > 0 or size == common):  # ONNX rounds negative quotients up
            yield Formula(plain.axes, factor=int(sizes[0]) // common, divisor=size // common)


def _sums(sizes: np.ndarray, shape: np.ndarray) -> Iterator[Formula]:
    for axis in _varying(shape):
        size = shape[:, axis]
        other = int(np.argmax(size != size[0]))
        factor, rest = divmod(int(sizes[other] - sizes[0]), int(size[other] - size[0]))
        if not rest and factor:
            yield Formula((axis,), factor, int(sizes[0] - factor * size[0]))


def _quotients(sizes: np.ndarray, shape: np.ndarray) -> Iterator[Formula]:
    """Rounded down and up. None if several divisors fit."""
    for axis in _varying(shape):
        rounded = [Formula((axis,), offset=o, divisor=n) for n in range(2, _LARGEST_DIVISOR + 1) for o in (0, n - 1)]
        fitting = [f for f in rounded if np.array_equal(f.of(shape.T), sizes)]
        if len(fitting) == 1:
            yield fitting[0]


def _remainders(sizes: np.ndarray, shape: np.ndarray) -> Iterator[Formula]:
    """Of a size, and what it lacks to the next multiple."""
    for axis in _varying(shape):
        for modulo in range(2, _LARGEST_DIVISOR + 1):
            yield Formula((axis,), modulo=modulo)
            yield Formula((axis,), factor=-1, modulo=modulo)


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class Size(keras.Operation):
    """Computes a `Formula` of the shape of its input: an int or a scalar tensor.

    Args:
        formula: the formula, or its fields as a dict.
        dtype: str; the dtype of the result. Default: `None`, an integer as the backend has it in shapes.
        name: str, the name of the operation.
    """

    def __init__(self, formula: Formula | dict[str, Any], dtype: str | None = None, *, name: str | None = None):
        super().__init__(name=name)
        if isinstance(formula, dict):
            formula = Formula(**{**formula, "axes": tuple(formula["axes"])})
        self.formula = formula
        self.dtype = dtype

    def call(self, x: Any) -> Any:
        size = self.formula.of(keras.ops.shape(x))
        return size if self.dtype is None else keras.ops.cast(size, self.dtype)

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        return keras.KerasTensor((), self.dtype or "int32")

    def get_config(self) -> dict[str, Any]:
        return {"formula": asdict(self.formula), "dtype": self.dtype, "name": self.name}


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class Positions(keras.Operation):
    """Returns 0, 1, 2, ... up to a size, exclusive.

    Args:
        dtype: str; the dtype of the result.
        name: str, the name of the operation.
    """

    def __init__(self, dtype: str, *, name: str | None = None):
        super().__init__(name=name)
        self.dtype = dtype

    def call(self, size: Any) -> Any:
        return keras.ops.arange(size, dtype=self.dtype)

    def compute_output_spec(self, size: Any) -> keras.KerasTensor:
        return keras.KerasTensor((None,), self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "name": self.name}


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class Sized(keras.Operation):
    """An operation of `keras.ops` whose attributes or arguments contain sizes that are known only at run time.

    Args:
        operation: the operation, with any ints in the places of the sizes.
        places: the place of each size.
        shape: tuple, the shape of the output; `None` for an axis of unknown size.
        name: str, the name of the operation.
    """

    def __init__(
        self,
        operation: keras.Operation,
        places: Sequence[Sequence[str | int]],
        shape: Sequence[int | None],
        *,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.operation = operation
        self.places = [tuple(place) for place in places]
        self.shape = tuple(shape)

    def with_sizes(self, sizes: Sequence[Any], args: Sequence[Any]) -> tuple[keras.Operation, list[Any]]:
        """Returns the operation and its arguments with the sizes in their places."""
        attributes, args = dict(vars(self.operation)), list(args)
        for (first, *rest), size in zip(self.places, sizes, strict=True):
            holder: Any = attributes if isinstance(first, str) else args
            holder[first] = _put(holder[first], rest, size)
        operation = object.__new__(type(self.operation))  # copy.copy would serialize it
        vars(operation).update(attributes)
        return operation, args

    def call(self, sizes: Sequence[Any], *args: Any) -> Any:
        operation, filled = self.with_sizes(sizes, args)
        return operation.call(*filled)

    def compute_output_spec(self, sizes: Sequence[Any], x: Any, *args: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.shape, keras.backend.standardize_dtype(x.dtype))

    def get_config(self) -> dict[str, Any]:
        operation = keras.saving.serialize_keras_object(self.operation)
        return {"operation": operation, "places": self.places, "shape": self.shape, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sized:
        return cls(**{**config, "operation": keras.saving.deserialize_keras_object(config["operation"])})


def essence(operation: keras.Operation) -> keras.Operation:
    """Returns the operation that a `Sized` operation contains; any other operation itself."""
    return operation.operation if isinstance(operation, Sized) else operation


def _put(structure: Any, place: Sequence[str | int], size: Any) -> Any:
    """Returns a list, tuple or slice with `size` at a place in it."""
    if not place:
        return size
    key, *rest = place
    if isinstance(structure, slice):
        parts: dict[Any, Any] = {name: getattr(structure, name) for name in _SLICE}
        return slice(*{**parts, key: _put(parts[key], rest, size)}.values())
    items = list(structure)
    items[int(key)] = _put(items[int(key)], rest, size)
    return tuple(items) if isinstance(structure, tuple) else items


def sizes_in(values: Sequence[Any], place: Place, found: Callable[[Place, Sequence[Any]], Any]) -> Any:
    """Returns a structure that is the same in all samples, with `found(place, values)` for what is not.

    Args:
        values: the structure in each sample: lists, tuples, dicts and slices of anything.
        place: the place of the structure.
        found: gets a place in the structure and the value there in each sample.
    """
    first = values[0]
    same_kind = all(type(v) is type(first) for v in values)
    if isinstance(first, slice) and same_kind:
        return slice(*(sizes_in([getattr(v, k) for v in values], (*place, k), found) for k in _SLICE))
    if isinstance(first, dict) and same_kind and all(v.keys() == first.keys() for v in values):
        return {k: sizes_in([v[k] for v in values], (*place, k), found) for k in first}
    if isinstance(first, list | tuple) and same_kind and all(len(v) == len(first) for v in values):
        return type(first)([sizes_in(each, (*place, i), found) for i, each in enumerate(zip(*values, strict=True))])
    return found(place, values)
