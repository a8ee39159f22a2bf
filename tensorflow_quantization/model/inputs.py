"""`model_inputs`: data as `predict` takes it, converted to one array for each input of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from tensorflow_quantization.model.graph import LayerGraph


def model_inputs(graph: LayerGraph, x: Any, name: str = "x") -> list[np.ndarray]:
    """Returns one array for each input of a model, in the order and in the dtypes of the inputs.

    Args:
        graph: the graph of the model.
        x: an array, or for several inputs a list of arrays, or a dict of arrays. The keys are the keys of the model's
            input structure if it is a dict, else the names of the inputs. Shapes include the batch axis.
        name: str, the name of `x` in the error message; default "x".

    Raises:
        ValueError: an array is missing or empty, or its number of axes differs from its input's.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tensorflow_quantization.model.graph import LayerGraph
    >>> left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    >>> graph = LayerGraph.trace(keras.Model([left, right], keras.layers.Add()([left, right])))
    >>> [float(a.mean()) for a in model_inputs(graph, {"right": np.zeros((2, 4)), "left": np.ones((2, 4))})]
    [1.0, 0.0]
    """
    if isinstance(x, dict):
        if isinstance(graph.input_structure, dict):
            x = {key: x.get(key) for key in graph.input_structure}
        else:
            x = [x.get(tensor.name) for tensor in graph.inputs]
    arrays = [None if a is None else np.asarray(a) for a in tree.flatten(x)]
    shapes = [None if a is None else a.shape for a in arrays]
    if len(arrays) != len(graph.inputs) or any(
        shape is None or len(shape) != len(t.shape) for shape, t in zip(shapes, graph.inputs, strict=False)
    ):
        wanted = ", ".join(f"{t.name} {t.shape}" for t in graph.inputs)
        raise ValueError(f"{name} must hold one array for each input ({wanted}), got shapes {shapes}.")
    if any(a is not None and 0 in a.shape for a in arrays):
        raise ValueError(f"{name} holds no data: shapes {shapes}. Pass at least one sample.")
    return [a.astype(t.dtype) for a, t in zip(arrays, graph.inputs, strict=True) if a is not None]
