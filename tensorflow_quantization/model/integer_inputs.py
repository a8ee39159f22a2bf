"""Which inputs of a subclassed model take integers.

Keras keeps the shapes that a model was built with, but not the dtypes.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.keras_internals import nodes_in_order


def integer_inputs(functional: keras.Model) -> list[keras.KerasTensor]:
    """Returns the inputs that a call reads which cannot compute with floats, such as the indices of `ops.take`.

    On PyTorch, `ops.take` converts floats to indices, so these inputs stay floats.

    Args:
        functional: a functional model whose inputs are floats.
    """
    # By the id of a tensor: the inputs that it is computed from, by operations that return integers for integers.
    sources: dict[int, list[keras.KerasTensor]] = {id(x): [x] for x in functional.inputs}
    found: list[keras.KerasTensor] = []
    for node in nodes_in_order(functional):
        read = [x for x in node.input_tensors if id(x) in sources]
        if node.is_input or not read:
            continue
        if not _computes(node, []):
            needed = next((xs for xs in [*([x] for x in read), read] if _computes(node, xs)), [])
            found += [source for x in needed for source in sources[id(x)]]
        for y in _keeping_integers(node, read):
            sources[id(y)] = [source for x in read for source in sources[id(x)]]
    return [x for x in functional.inputs if any(x is y for y in found)]


def _arguments(node: Any, integers: list[keras.KerasTensor]) -> tuple[Any, Any]:
    """The arguments of a call, in which these tensors are integers."""

    def argument(x: Any) -> Any:
        return keras.KerasTensor(x.shape, "int32") if any(x is y for y in integers) else x

    return tree.map_structure(argument, (node.arguments.args, node.arguments.kwargs))


def _computes(node: Any, integers: list[keras.KerasTensor]) -> bool:
    """Whether the backend computes a call in which these tensors are integers."""
    args, kwargs = _arguments(node, integers)
    try:
        # Of the base class, since many operations compute shapes only in theirs.
        keras.Operation.compute_output_spec(node.operation, *args, **kwargs)
    except Exception:  # the code of a layer may raise anything
        return False
    return True


def _keeping_integers(node: Any, read: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """The outputs of a call that are integers if the tensors that it reads are."""
    args, kwargs = _arguments(node, read)
    try:
        specs = tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
    except Exception:  # see `_computes`
        return []
    return [y for y, spec in zip(node.outputs, specs, strict=True) if keras.backend.is_int_dtype(spec.dtype)]
