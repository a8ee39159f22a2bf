"""Data as a user passes it, converted to one array for each input of a graph: one batch, or batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import tree
from keras.utils import PyDataset

from tensorflow_quantization.model.graph import LayerGraph, Tensor
from tensorflow_quantization.model.keras_internals import data_adapter
from tensorflow_quantization.text.messages import did_you_mean

#: Samples in a batch of arrays, as in `keras.Model.predict`.
BATCH_SIZE = 32
#: The number of shapes that an error shows.
_SHOWN = 8


def model_inputs(
    graph: LayerGraph, x: Any, name: str = "x", numbers: Sequence[int] | np.ndarray | None = None
) -> list[np.ndarray]:
    """Returns one array for each input of a model, in the order and in the dtypes of the inputs.

    Args:
        graph: the graph of the model.
        x: an array, or for several inputs a list of arrays, or a dict of arrays. The keys are the keys of the model's
            input structure if it is a dict, else the names of the inputs. Shapes include the batch axis. Like
            `predict`, it accepts an array without the last axis if the last axis of the input has size 1.
        name: str, the name of `x` in the error message; default "x".
        numbers: the numbers of the samples in error messages; `None` (default): their positions in `x`.

    Raises:
        ValueError: an array is missing or empty, its shape differs from its input's, or an input of integers gets other
            numbers; or `x` holds no arrays.

    Examples:

    >>> import keras
    >>> import numpy as np
    >>> from tensorflow_quantization.model.graph import LayerGraph
    >>> left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    >>> graph = LayerGraph.trace(keras.Model([left, right], keras.layers.Add()([left, right])))
    >>> [float(a.mean()) for a in model_inputs(graph, {"right": np.zeros((2, 4)), "left": np.ones((2, 4))})]
    [1.0, 0.0]
    """
    return [_cast(a, t, name, numbers) for a, t in zip(fitting_arrays(graph, x, name), graph.inputs, strict=True)]


def fitting_arrays(graph: LayerGraph, x: Any, name: str = "x") -> list[np.ndarray]:
    """Returns views of the arrays for the inputs of a model, as `model_inputs` does, in their own dtypes.

    So files of arrays are checked without reading them.

    Raises:
        ValueError: an array is missing or empty, or its shape differs from its input's; or `x` holds no arrays.
    """
    arrays = _arrays(graph, x)
    fitting = _fitting(graph, arrays)
    if fitting is None:
        wanted = ", ".join(f"{t.name} {t.shape}" for t in graph.inputs)
        raise ValueError(f"{name} must hold one array for each input ({wanted}), got {_got(graph, x, arrays)}")
    shapes = _shapes(arrays)
    if any(0 in a.shape for a in fitting):
        raise ValueError(f"{name} holds no data: shapes {shapes}. Pass at least one sample.")
    if is_batched(graph) and len({len(a) for a in fitting}) > 1:
        raise ValueError(f"{name} has arrays with different numbers of samples: shapes {shapes}.")
    return fitting


@dataclass
class Batches:
    """Batches of data: iterate over them once.

    Attributes:
        count: the number of batches; `None` if it is unknown.
        batches: each a list with one array for each input.
    """

    count: int | None
    batches: Iterable[list[np.ndarray]]

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.batches)


def input_batches(graph: LayerGraph, data: Any, batch_size: int | None = None, name: str = "x") -> Batches:
    """Returns data of any form as batches. The batches of a model with a fixed batch size have this size.

    Args:
        graph: the graph of the model.
        data: one of

            - arrays as `model_inputs` takes them: an array, or a list, tuple or dict of arrays; or a tuple (x, y) or
              (x, y, sample_weight) of such arrays, of which only x is used;
            - anything that yields batches, each such arrays or such a tuple: a `tf.data.Dataset`, a `PyDataset`, a
              generator, a torch `DataLoader`, a list of batches.
        batch_size: int, samples in a batch of arrays; `None` (default) for all. The batches of data that yields batches
            stay as they are.
        name: str, the name of `data` in error messages; default "x".

    Returns:
        The batches.

    Raises:
        ValueError: the data does not fit the inputs of the model, see `model_inputs`; or its samples do not fill the
            batches of a model with a fixed batch size. For data that yields batches, the iteration raises it.

    Examples:

    >>> import keras
    >>> import numpy as np
    >>> from tensorflow_quantization.model.graph import LayerGraph
    >>> inputs = keras.Input((4,))
    >>> graph = LayerGraph.trace(keras.Model(inputs, keras.layers.ReLU()(inputs)))
    >>> [x.shape for x, in input_batches(graph, np.zeros((5, 4)), batch_size=2)]
    [(2, 4), (2, 4), (1, 4)]
    >>> [x.shape for x, in input_batches(graph, ((np.zeros((2, 4)), np.zeros(2)) for _ in range(3)))]
    [(2, 4), (2, 4), (2, 4)]
    """
    fixed = _fixed_size(graph)
    if _yields_batches(graph, data):
        parts = (_split(model_inputs(graph, _only_x(graph, batch), name), fixed, fixed, name) for batch in _each(data))
        return Batches(None if fixed else _length(data), itertools.chain.from_iterable(parts))
    arrays = model_inputs(graph, _only_x(graph, data) if isinstance(data, tuple) else data, name)
    size = fixed or batch_size
    if size is None or not is_batched(graph):
        return Batches(1, [arrays])
    return Batches(-(-len(arrays[0]) // size), _split(arrays, size, fixed, name))


def first_batches(graph: LayerGraph, data: Any, samples: int, name: str = "x") -> list[Any]:
    """Returns the first batches of data, each in the structure of the model's inputs, that hold at least `samples`.

    Args:
        graph: the graph of the model.
        data: see `input_batches`.
        samples: int, the number of samples; all batches if the data holds fewer.
        name: str, the name of `data` in error messages; default "x".

    Raises:
        ValueError: the data is empty, or does not fit the inputs of the model.
    """
    found: list[Any] = []
    count = 0
    for arrays in input_batches(graph, data, BATCH_SIZE, name):
        found.append(tree.pack_sequence_as(graph.input_structure, arrays))
        count += len(arrays[0])
        if count >= samples:
            break
    if not found:
        raise ValueError(f"{name} is empty: it has no batch.")
    return found


def _arrays(graph: LayerGraph, x: Any) -> list[np.ndarray | None]:
    """The arrays in `x`, for a dict in the order of the inputs; `None` for an input without an array."""
    if isinstance(x, dict):
        found = [x.get(key) for key in _keys(graph)]
        x = dict(zip(_keys(graph), found, strict=True)) if isinstance(graph.input_structure, dict) else found
    leaves = tree.flatten(x)
    if isinstance(x, list | tuple) and leaves and all(isinstance(leaf, int | float) for leaf in leaves):
        leaves = list(x) if len(graph.inputs) > 1 else [x]  # lists of numbers
    return [None if a is None else _to_numpy(a) for a in leaves]


def _keys(graph: LayerGraph) -> list[str]:
    """The keys of a dict of arrays."""
    if isinstance(graph.input_structure, dict):
        return list(graph.input_structure)
    return [tensor.name for tensor in graph.inputs]


def _to_numpy(x: Any) -> np.ndarray:
    # A tensor of PyTorch may have a gradient, or be on a GPU.
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _fitting(graph: LayerGraph, arrays: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """The arrays in the shapes of the inputs; `None` if one does not fit."""
    if len(arrays) != len(graph.inputs):
        return None
    found = []
    for array, tensor in zip(arrays, graph.inputs, strict=True):
        if array is None:
            return None
        if array.shape[1:] == tensor.shape[1:-1] and len(tensor.shape) > 1 and tensor.shape[-1] == 1:
            array = array[..., None]
        if not _has_shape(array, tensor):
            return None
        # What holds no numbers raises an error here.
        found.append(array.astype(tensor.dtype) if array.dtype.kind in "OSU" and tensor.dtype != "string" else array)
    return found


def _cast(array: np.ndarray, tensor: Tensor, name: str, numbers: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """An array in the dtype of an input."""
    if tensor.dtype == "string":
        return array
    with np.errstate(invalid="ignore"):
        cast = array.astype(tensor.dtype)
    if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
        where = np.argwhere(cast != array)[0]
        sample = int(where[0]) if numbers is None else int(numbers[where[0]])
        raise ValueError(
            f"{name} holds {array[tuple(where)]:g} for input {tensor.name!r}, first in sample {sample}, and the input "
            f"takes integers, {tensor.dtype}. Pass what the training used."
        )
    return cast


def _has_shape(array: np.ndarray, tensor: Tensor) -> bool:
    """Whether the axes of an array after the batch fit those of an input."""
    return array.ndim == len(tensor.shape) and _same(array.shape[1:], tensor.shape[1:])


def _same(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


def _shapes(arrays: list[np.ndarray | None]) -> list[Any]:
    """The shapes that an error shows."""
    return [None if a is None else a.shape for a in arrays[:_SHOWN]] + ["..."] * (len(arrays) > _SHOWN)


def _got(graph: LayerGraph, x: Any, arrays: list[np.ndarray | None]) -> str:
    """What was passed instead of arrays that fit, and what is probably wrong: the end of an error message."""
    if isinstance(x, dict):
        wanted = _keys(graph)
        unknown, missing = ([k for k in one if k not in other] for one, other in ((x, wanted), (wanted, x)))
        if missing:
            hints = [f" There is no input {key!r}.{did_you_mean(str(key), missing)}" for key in unknown[:_SHOWN]]
            return f"the keys {list(x)[:_SHOWN]}, without {missing}.{''.join(hints)}"
    if not any(t.dtype == "string" for t in graph.inputs):
        odd = [kind for leaf in tree.flatten(x) if (kind := _odd_kind(leaf))]
        if odd:
            return f"{', '.join(dict.fromkeys(odd[:_SHOWN]))}. Pass arrays of numbers."
    return f"shapes {_shapes(arrays)}.{_hint(graph, arrays)}"


def _odd_kind(leaf: Any) -> str:
    """The type of a leaf that is no array of numbers, from which NumPy makes an array of text or objects; else ""."""
    if leaf is None or isinstance(leaf, bool):
        return "" if leaf is None else "bool"
    array = _to_numpy(leaf)
    if array.dtype.kind not in "OSU":
        return ""
    return f"an array of {array.dtype}" if isinstance(leaf, np.ndarray) else type(leaf).__name__


def _hint(graph: LayerGraph, arrays: list[np.ndarray | None]) -> str:
    """What is probably missing in arrays that do not fit."""
    count = len(graph.inputs)
    if not arrays or len(arrays) % count:
        return ""
    wanted = itertools.cycle(t.shape[1:] for t in graph.inputs)
    if not all(a is not None and _same(a.shape, shape) for a, shape in zip(arrays, wanted, strict=False)):
        return ""
    if len(arrays) > count:
        return f" These are {len(arrays) // count} samples without a batch axis: pass one array, np.stack(samples)" + (
            ", for each input." if count > 1 else "."
        )
    return " The batch axis is missing: did you forget .batch() of a dataset, or the axis of a single sample, x[None]?"


def _fits(graph: LayerGraph, x: Any) -> bool:
    """Whether `x` holds the arrays of one batch."""
    try:
        return _fitting(graph, _arrays(graph, x)) is not None
    except (TypeError, ValueError):  # a list of other things
        return False


def _only_x(graph: LayerGraph, batch: Any) -> Any:
    """The x of a batch (x,), (x, y) or (x, y, sample_weight), which a `DataLoader` yields as a list; else the batch."""
    if not isinstance(batch, list | tuple) or not 1 <= len(batch) <= 3 or _fits(graph, batch):
        return batch
    # A tuple is (x, y, ...) for Keras, whatever is in it: an error about x is clearer than one about x and y.
    pair = isinstance(batch, tuple) and len(graph.inputs) != len(batch)
    return batch[0] if pair or _fits(graph, batch[0]) else batch


def _yields_batches(graph: LayerGraph, data: Any) -> bool:
    if hasattr(data, "shape") or isinstance(data, dict):
        return False
    if isinstance(data, list | tuple):
        one = _fits(graph, data) or (isinstance(data, tuple) and _fits(graph, _only_x(graph, data)))
        return not one and len(data) > 0 and all(_fits(graph, _only_x(graph, batch)) for batch in data)
    return isinstance(data, Iterable | PyDataset)


def _each(data: Any) -> Iterator[Any]:
    # A PyDataset has no iterator of its own.
    return data_adapter(data, None).get_numpy_iterator() if isinstance(data, PyDataset) else iter(data)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # no length, or not known
        return None


def _fixed_size(graph: LayerGraph) -> int | None:
    """The batch size of a model that has a fixed one."""
    return graph.inputs[0].shape[0] if is_batched(graph) else None


def is_batched(graph: LayerGraph) -> bool:
    """Whether the first axis of all inputs is the batch: not if an input has a size of its own there."""
    return all(t.shape for t in graph.inputs) and len({t.shape[0] for t in graph.inputs}) == 1


def _split(arrays: list[np.ndarray], size: int | None, fixed: int | None, name: str) -> Iterator[list[np.ndarray]]:
    """Batches of `size` samples; `None` for one batch.

    Raises:
        ValueError: the last batch of a model with a fixed batch size is not full.
    """
    if size is None:
        return iter([arrays])
    count = len(arrays[0])
    if fixed and count % fixed:
        raise ValueError(
            f"{name} has {count} samples, and the model has a fixed batch size of {fixed}. Pass a multiple of {fixed}."
        )
    return ([array[start : start + size] for array in arrays] for start in range(0, count, size))
