"""Outputs that are NaN or infinite: nothing can be compared with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.weights import float32_array

#: What to do about them, besides passing other data.
ADVICE = "Or end the model before that output, and compute it behind: the logarithm of zero, for example, is infinite."


def check_finite_model(model: keras.Model, batches: Iterable[Any]) -> None:
    """Runs a model on batches of inputs, and raises what `check_finite_outputs` raises."""
    graph = LayerGraph.trace(model)
    for arrays in (arrays for batch in batches for arrays in input_batches(graph, batch, BATCH_SIZE)):
        outputs = model.predict_on_batch(tree.pack_sequence_as(graph.input_structure, arrays))
        check_finite_outputs(graph, [float32_array(y) for y in tree.flatten(outputs)])


def check_finite_outputs(graph: LayerGraph, outputs: Sequence[np.ndarray]) -> None:
    """Checks what a model returns for data: one array for each output. It raises what `check_finite` raises."""
    check_finite(graph.model.name, output_names(graph), [bool(np.isfinite(y).all()) for y in outputs])


def check_finite(model: str, names: Sequence[str], finite: Sequence[bool]) -> None:
    """Raises an error if an output of a model is not finite.

    Args:
        model: the name of the model.
        names: of the outputs.
        finite: whether each output is finite.

    Raises:
        ValueError: an output is NaN or infinite; the message names the first.
    """
    if not all(finite):
        raise ValueError(
            f"Model {model!r} returns values that are NaN or infinite for this data, in output "
            f"{names[finite.index(False)]!r}. Check the data. {ADVICE}"
        )


def output_names(graph: LayerGraph) -> list[str]:
    """Returns, for each output, its key in the dict that the model returns, or the name of its layer."""
    paths = [path for path, _ in tree.flatten_with_path(graph.output_structure)]
    return [
        str(path[-1])
        if path and isinstance(path[-1], str)
        else tensor.producer.name
        if tensor.producer
        else tensor.name
        for path, tensor in zip(paths, graph.outputs, strict=True)
    ]
