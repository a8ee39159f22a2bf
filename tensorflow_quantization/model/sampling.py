"""Trace a layer whose code computes with sizes that are known only at run time, `ops.shape(x)[0]` for example.

Keras has no symbol for such a size: `ops.shape` of a symbolic tensor has `None` for it. So the layer is traced several
times, on inputs of several known sizes. What is the same in all traces is constant. What differs is a size, and
`find_formula` tells how it depends on the sizes of the tensors before it. A difference without a formula is an error.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.keras_internals import BroadcastToOperation, ReshapeOperation
from tensorflow_quantization.model.made_arrays import MadeArray, MadeArrays
from tensorflow_quantization.model.own_weights import OwnWeights
from tensorflow_quantization.model.sizes import Place, Positions, Size, Sized, find_formula, sizes_in
from tensorflow_quantization.model.tracing import UntraceableError, computes_same, trace_call
from tensorflow_quantization.text.warn import converting

#: Operations of `keras.ops` that can get sizes known only at run time.
SIZED = frozenset({"BroadcastTo", "GetItem", "Reshape", "Resize", "Tile"})

#: Sizes of axes in the samples. They differ in parity and in the remainders of small divisors, and their range is wide,
#: so that two formulas rarely agree on all of them.
_SIZES = (65, 98, 127, 222, 333, 500, 749)
_BATCH_SIZES = (2, 3, 4, 5, 7, 8, 9)
#: If a layer takes none of these, such as one with a row for each of a few positions.
_SMALL_SIZES = (3, 4, 5, 8, 11, 14, 18)
#: If a layer takes only sizes that are multiples of some number, as U-shaped networks do: the numbers that are tried.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)

#: Errors that code raises whatever the sizes are, if it raises the same one twice.
_NOT_ABOUT_SIZES = (AttributeError, NameError, NotImplementedError, TypeError)

Shapes = list[tuple[int, ...]]


def trace_with_sizes(
    call: Call,
    training: bool | None = False,
    scope: keras.StatelessScope | None = None,
    weights: OwnWeights | None = None,
    others: Sequence[Sequence[Sequence[int | None]]] = (),
    same_in_training: bool = False,
) -> tuple[LayerGraph, list[int]]:
    """Returns what `trace_call` returns, with operations that compute the sizes that the layer's code reads.

    Args:
        call: the call of a layer.
        training, scope, weights: see `trace_call`.
        others: shapes of `call.inputs` for which the graph must be right, too; `None` for any size. Default none.
        same_in_training: whether the layer has to compute the same in training; default `False`.

    Raises:
        UntraceableError: a size has no formula, or an operation cannot get it at run time.
        Exception: of any other type; the code of the layer raised it for all sizes that were tried.
    """

    def trace(shapes: Shapes | None = None, arrays: MadeArrays | None = None) -> tuple[LayerGraph, list[int]]:
        return trace_call(call, training, scope, shapes, weights, arrays)

    def check_training(graph: LayerGraph, shapes: Shapes | None = None) -> None:
        if same_in_training and not computes_same(trace_call(call, True, scope, shapes, weights)[0], graph):
            raise UntraceableError("it computes something else in training")

    plain = None
    with contextlib.suppress(Exception):  # the code of the layer may raise anything, for `None` in a shape
        plain = trace()
    error: Exception | None = None
    given = [t.shape for t in call.inputs]
    ties = _ties(given)
    for number, (first, *rest) in enumerate(_samples(given, ties)):
        arrays, other_arrays = MadeArrays(), MadeArrays()
        try:
            sample, positions = trace(first, arrays)
            filled = [_filled(shapes, first) for shapes in others]
            graphs = [sample, *(trace(shapes)[0] for shapes in filled)]
            if plain is not None and not any(_differ(plain[0], graph) for graph in graphs):
                check_training(plain[0])
                return plain
            check_training(sample, first)
            graphs.append(trace(rest[0], other_arrays)[0])
            differing = arrays.differing(other_arrays)
            if differing:
                samples = [(shapes, MadeArrays(differing)) for shapes in [first, *filled, *rest]]
                with contextlib.suppress(Exception):  # the code may need the values of the arrays
                    traced = [trace(*sample)[0] for sample in samples]
                    if not any(made.compared for _, made in samples):
                        return _Merger(traced).merged(), positions
            graphs += [trace(shapes)[0] for shapes in rest[1:]]
        except UntraceableError:
            raise
        except Exception as raised:  # the layer may take only other sizes
            if isinstance(raised, _NOT_ABOUT_SIZES) and str(raised) == str(error):
                break
            if number < len(ties):  # of independent sizes, it may only say that they differ
                error = raised
        else:
            return _Merger(graphs).merged(), positions
    if plain is None or _has_unknown_size(plain[0]):
        assert error is not None
        raise error
    check_training(plain[0])
    return plain


def _filled(shapes: Sequence[Sequence[int | None]], sample: Shapes) -> Shapes:
    """Shapes in which the sizes of a sample replace the unknown ones."""
    pairs = zip(shapes, sample, strict=True)
    return [tuple(s if d is None else d for d, s in zip(shape, known, strict=True)) for shape, known in pairs]


def _differ(plain: LayerGraph, sample: LayerGraph) -> bool:
    """Whether the code of a layer read a size.

    If so, it did something else in the sample, or had a number there that was not known without.
    """
    if len(plain.calls) != len(sample.calls):
        return True
    found: list[bool] = []

    def note(place: Place, values: Sequence[Any]) -> None:
        if not isinstance(values[0], Tensor):
            found.append(not _equal(values))

    for calls in zip(plain.calls, sample.calls, strict=True):
        first, second = (c.operation for c in calls)
        # A layer without weights may be made by the code that calls it.
        if type(first) is not type(second) or (first is not second and getattr(first, "weights", None)):
            return True
        sizes_in([(c.args, c.kwargs) for c in calls], (), note)
        if not calls[0].is_layer:
            sizes_in([_attributes(c.operation) for c in calls], (), note)
    return any(found)


def _attributes(operation: keras.Operation) -> dict[str, Any]:
    """The arguments that an operation was made with, by the names of its attributes."""
    return {name: value for name, value in vars(operation).items() if not name.startswith("_") and name != "name"}


def _has_unknown_size(graph: LayerGraph) -> bool:
    """Whether the code used the size of a dynamic axis, where it is `None`.

    An operation of the graph then has a shape with `None` in it, or an array without elements: `arange(0, None)`.
    """

    def is_shape(value: Any) -> bool:
        if isinstance(value, tuple):
            return None in value and any(isinstance(size, int) for size in value)
        return not isinstance(value, Tensor) and 0 in tuple(getattr(value, "shape", None) or ())

    return any(
        is_shape(value)
        for call in graph.calls
        if not call.is_layer
        for value in [*vars(call.operation).values(), *call.args, *call.kwargs.values()]
    )


#: Gets an input and an axis. Returns the axis that has the same size in a sample, as (input, axis).
_Tie = Callable[[int, int], tuple[int, int]]


def _ties(shapes: Sequence[tuple[int | None, ...]]) -> list[_Tie]:
    """Which unknown axes of inputs may have the same size: none but the batch, the same axis of all inputs, all axes.

    All axes, because of a sequence and a mask between its steps.
    """
    unknown = {(i, axis) for i, shape in enumerate(shapes) for axis, d in enumerate(shape) if axis and d is None}
    ties: list[_Tie] = [lambda i, axis: (i if axis else 0, axis)]
    if len({axis for _, axis in unknown}) < len(unknown):
        ties.append(lambda i, axis: (0, axis))
    if len({axis for _, axis in unknown}) > 1:
        ties.append(lambda i, axis: (0, min(axis, 1)))
    return ties


def _samples(shapes: Sequence[tuple[int | None, ...]], ties: Sequence[_Tie]) -> Iterator[list[Shapes]]:
    """Sets of samples of input shapes."""
    multiples = [-(-np.asarray(_SIZES) // multiple) * multiple for multiple in _MULTIPLES]
    for tried, tie in itertools.product([*multiples, np.asarray(_SMALL_SIZES)], ties):

        def sizes(i: int, axis: int) -> np.ndarray:
            rng = np.random.default_rng(tie(i, axis))  # noqa: B023
            return rng.permutation(tried if axis else _BATCH_SIZES)  # noqa: B023

        yield [
            [
                tuple(int(sizes(i, axis)[k]) if d is None else d for axis, d in enumerate(shape))
                for i, shape in enumerate(shapes)
            ]
            for k in range(len(_SIZES))
        ]


class _Merger:
    """Merges the graphs of several samples into one. The first graph is changed, and becomes the result."""

    def __init__(self, samples: list[LayerGraph]):
        self.samples = samples
        self.graph = samples[0]
        self.calls: list[Call] = []
        self.tensors: list[Tensor] = []  # of the result, each with its shapes in the samples:
        self.shapes: list[np.ndarray] = []
        self.places: list[dict[int, int]] = [{} for _ in samples]  # by sample and id of a tensor: index in `tensors`
        self.known: dict[Any, Tensor] = {}  # the sizes that are computed already
        self.names = {call.name for call in self.graph.calls}

    def merged(self) -> LayerGraph:
        graph = self.graph
        self._add([sample.inputs for sample in self.samples])
        if len({len(sample.calls) for sample in self.samples}) > 1:
            raise UntraceableError("it computes something else for other sizes")
        for same in zip(*(sample.calls for sample in self.samples), strict=True):
            self._merge(same)
        for outputs in zip(*(sample.outputs for sample in self.samples), strict=True):
            self._place(outputs)
        made = {id(t) for t in self.known.values()}
        read = {id(t) for c in self.calls for t in c.inputs}
        calls = [c for c in self.calls if id(c.outputs[0]) in read or id(c.outputs[0]) not in made]
        return LayerGraph(
            graph.model, graph.inputs, graph.outputs, graph.input_structure, graph.output_structure, calls
        )

    def _add(self, samples: Sequence[Sequence[Tensor]]) -> None:
        """Note tensors; an axis whose size differs becomes unknown."""
        if len({tuple(len(t.shape) for t in tensors) for tensors in samples}) > 1:
            raise UntraceableError("it computes something else for other sizes")
        for tensors in zip(*samples, strict=True):
            for places, tensor in zip(self.places, tensors, strict=True):
                places[id(tensor)] = len(self.tensors)
            shapes = np.asarray([t.shape for t in tensors], np.int64)
            tensors[0].shape = tuple(int(d[0]) if (d == d[0]).all() else None for d in shapes.T)
            self.tensors.append(tensors[0])
            self.shapes.append(shapes)

    def _place(self, tensors: Sequence[Tensor]) -> Tensor:
        """The tensor of the result that is these tensors of the samples."""
        indices = {places.get(id(t)) for places, t in zip(self.places, tensors, strict=True)}
        if len(indices) > 1 or None in indices:
            raise UntraceableError("it computes something else for other sizes")
        return self.tensors[indices.pop()]  # type: ignore[index]

    def _merge(self, calls: Sequence[Call]) -> None:
        call = calls[0]
        operations: list[Any] = [c.operation for c in calls]
        if all(isinstance(o, MadeArray) for o in operations):
            self._replace(calls, self._computed(call, [o.array for o in operations]))
            return
        if any(type(o) is not type(operations[0]) or (call.is_layer and o is not operations[0]) for o in operations):
            raise UntraceableError("it computes something else for other sizes")
        places: list[Place] = []
        sizes: list[Tensor] = []

        def in_operation(place: Place, values: Sequence[Any]) -> Any:
            if _equal(values):
                return values[0]
            if call.class_name not in SIZED:
                raise UntraceableError(f"its {call.class_name} needs a size that is known only at run time")
            places.append(place)
            sizes.append(self._size(call, values))
            return values[0]

        def in_arguments(place: Place, values: Sequence[Any]) -> Any:
            if isinstance(values[0], Tensor):
                return self._place(values)
            if _equal(values):
                return values[0]
            if call.class_name == "GetItem":
                return in_operation(place, values)
            return self._computed(call, values)

        if not call.is_layer:
            sizes_in([_attributes(o) for o in operations], (), in_operation)
        call.args = sizes_in([c.args for c in calls], (), in_arguments)
        call.kwargs = sizes_in([c.kwargs for c in calls], (), in_arguments)
        self._add([c.outputs for c in calls])
        if places:
            self._set_sizes(call, places, sizes)
        call.inputs = [x for x in tree.flatten((call.args, call.kwargs)) if isinstance(x, Tensor)]
        self.calls.append(call)

    def _replace(self, calls: Sequence[Call], tensor: Tensor) -> None:
        """Let a tensor be the output of these calls, which are left out."""
        for places, call in zip(self.places, calls, strict=True):
            places[id(call.outputs[0])] = len(self.tensors)
        self.tensors.append(tensor)
        self.shapes.append(np.asarray([call.outputs[0].shape for call in calls], np.int64))

    def _set_sizes(self, call: Call, places: list[Place], sizes: list[Tensor]) -> None:
        """Make sizes arguments of a call."""
        shape = call.outputs[0].shape
        if isinstance(call.operation, ReshapeOperation) and len(places) == 1 and -1 not in call.operation.newshape:
            newshape = [-1 if (axis,) == places[0][1:] else d for axis, d in enumerate(call.operation.newshape)]
            call.operation = ReshapeOperation(tuple(newshape), name=call.name)
            return
        call.operation = Sized(call.operation, places, shape, name=call.name)
        call.args = (sizes, *call.args, *call.kwargs.values())
        call.kwargs = {}

    def _size(self, call: Call, values: Any, dtype: str | None = None) -> Tensor:
        """The tensor of a size, which has these values in the samples."""
        sizes = np.asarray(values)
        found = None
        if sizes.dtype.kind in "iuf" and sizes.ndim == 1 and (sizes == sizes.astype(np.int64)).all():
            found = find_formula(sizes.astype(np.int64), self.shapes)
        if found is None:
            raise UntraceableError(
                f"its {call.class_name} needs a number that is known only at run time, and is no simple formula of "
                f"the sizes of a tensor: {', '.join(str(v) for v in values[:3])}, ... for inputs of other sizes"
            )
        index, formula = found
        return self._append((index, formula, dtype), lambda n: Size(formula, dtype, name=n), [self.tensors[index]], ())

    def _computed(self, call: Call, values: Sequence[Any]) -> Tensor:
        """The tensor of an argument that differs: a number, or a constant array whose shape depends on the sizes."""
        if isinstance(values[0], int | float):
            return self._size(call, values, None if isinstance(values[0], int) else keras.config.floatx())
        try:
            with converting():
                arrays = [keras.ops.convert_to_numpy(v) for v in values]
        except Exception as error:
            raise UntraceableError(f"its {call.class_name} gets another argument for other sizes") from error
        dtype = keras.backend.standardize_dtype(values[0].dtype)
        if all(a.ndim == 0 for a in arrays):
            return self._size(call, arrays, dtype)
        if all(a.ndim == arrays[0].ndim for a in arrays):
            shapes = np.asarray([a.shape for a in arrays])
            varying = [axis for axis in range(arrays[0].ndim) if np.ptp(shapes[:, axis])]
            if len(varying) == 1 and all(np.array_equal(a.ravel(), np.arange(a.shape[varying[0]])) for a in arrays):
                return self._positions(call, dtype, shapes, varying[0])
            largest = max(arrays, key=lambda a: a.size)  # a size can be 0
            base = largest[tuple(slice(1) if axis in varying else slice(None) for axis in range(largest.ndim))]
            if varying and all(np.array_equal(a, np.broadcast_to(base, a.shape)) for a in arrays):
                return self._broadcast(call, base, dtype, shapes, varying)
        raise UntraceableError(
            f"its {call.class_name} gets an array that depends on sizes known only at run time, {arrays[0].shape} and "
            f"{arrays[1].shape} for example. Compute the array from tensors: Keras computes it while it traces"
        )

    def _positions(self, call: Call, dtype: str, shapes: np.ndarray, axis: int) -> Tensor:
        size = self._size(call, shapes[:, axis])
        positions = self._append((size.name, dtype), lambda n: Positions(dtype, name=n), [size], (None,), dtype)
        if shapes.shape[1] == 1:
            return positions
        shape = tuple(None if a == axis else 1 for a in range(shapes.shape[1]))
        newshape = tuple(-1 if d is None else d for d in shape)
        key = (positions.name, newshape)
        return self._append(key, lambda n: ReshapeOperation(newshape, name=n), [positions], shape, dtype)

    def _broadcast(self, call: Call, base: Any, dtype: str, shapes: np.ndarray, varying: list[int]) -> Tensor:
        sizes = [self._size(call, shapes[:, axis]) for axis in varying]
        operation = BroadcastToOperation(tuple(shapes[0].tolist()))
        shape = tuple(None if axis in varying else int(d) for axis, d in enumerate(shapes[0]))
        places = [("shape", axis) for axis in varying]
        key = (base.tobytes(), base.shape, dtype, *(size.name for size in sizes))
        return self._append(key, lambda n: Sized(operation, places, shape, name=n), [sizes, base], shape, dtype)

    def _append(
        self,
        key: Any,
        operation: Callable[[str], keras.Operation],
        args: Sequence[Any],
        shape: tuple[int | None, ...],
        dtype: str | None = None,
    ) -> Tensor:
        """The output of a new call; an equal call is not repeated."""
        if key not in self.known:
            name = next(n for n in (f"size_{i}" if i else "size" for i in itertools.count()) if n not in self.names)
            self.names.add(name)
            made = operation(name)
            prefix = self.graph.calls[0].path.removesuffix(self.graph.calls[0].name)
            inputs = [x for x in tree.flatten(args) if isinstance(x, Tensor)]
            call = Call(made, f"{prefix}{name}", tuple(args), {}, inputs, [])
            dtype = dtype or getattr(made, "dtype", None) or "int32"
            call.outputs = [Tensor(shape, dtype, name, producer=call)]
            self.calls.append(call)
            self.known[key] = call.outputs[0]
        return self.known[key]


def _equal(values: Sequence[Any]) -> bool:
    """Whether a value is the same in all samples. Objects other than numbers, strings and arrays count as the same."""
    first = values[0]
    if any(type(v) is not type(first) for v in values):
        return False
    if all(v is first for v in values):
        return True
    if isinstance(first, str | bool):
        return all(v == first for v in values)
    if isinstance(first, keras.Variable):
        return False
    if hasattr(first, "shape") and hasattr(first, "dtype"):
        with converting():
            arrays = [keras.ops.convert_to_numpy(v) for v in values]
        return all(np.array_equal(a, arrays[0], equal_nan=a.dtype.kind == "f") for a in arrays)
    return not isinstance(first, int | float | list | tuple) or all(v == first for v in values)
