"""`warn_of_scale`: warns if calibration data has another scale than the data that the model was trained on.

The moving mean and variance of the first BatchNormalizations say what training data looked like there. Images from 0 to
255 in a network that was trained on 0 to 1 would give ranges that are 255 times too wide, without any error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter, input_tensors
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.text.warn import warn_user

#: Data is suspicious if the mean of ((x - moving mean) / moving deviation)**2 over a batch exceeds this in half or more
#: of the channels. For training data the mean is 1 in expectation. Even for a single sample it is above 100 in one
#: channel with a probability of at most 1/100 (Markov's inequality). Images of 0 to 255 instead of 0 to 1 raise it to
#: about 255**2 = 65025, instead of -1 to 1 to about 127**2 = 16129.
_FAR = 100.0


def warn_of_scale(model: keras.Model, batch: Any) -> None:
    """Warns if a batch is far outside what the first BatchNormalizations of a model have seen in training.

    Args:
        model, batch: see `scale_mismatch`.
    """
    mismatch = scale_mismatch(model, batch)
    if mismatch is not None:
        warn_user(
            f"{mismatch} The calibration data seems to have another scale than the training data, for example 0 to 255 "
            "instead of 0 to 1: preprocess it as in training."
        )


def scale_mismatch(model: keras.Model, batch: Any) -> str | None:
    """Returns how a batch differs from what the first BatchNormalizations of a model have seen in training.

    `None` if it does not. A model that cannot be traced, and a BatchNormalization that was never trained, are not
    checked.

    Args:
        model: the model. Its activation quantizers have to return their inputs: a quantizer would clip them.
        batch: as `predict_on_batch` takes it.
    """
    try:
        graph = LayerGraph.trace(model).flatten()
        first = {id(call): call for call in _first_normalizations(graph)}
        run = Interpreter(graph).start(input_tensors(graph, batch)) if first else None
    except ValueError:
        return None
    while run is not None and first and not run.finished:
        computed = run.step()
        call = first.pop(id(computed.call), None)
        far = None if call is None else _far(_normalization(call), computed.inputs[0])
        if call is not None and far is not None:
            return f"Layer {call.path!r} got {far}."
    return None


def judges_scale(model: keras.Model) -> bool:
    """Whether a BatchNormalization of the model has statistics by which `scale_mismatch` judges its inputs."""
    try:
        return any(True for _ in _first_normalizations(LayerGraph.trace(model).flatten()))
    except ValueError:
        return False


def _normalization(call: Call) -> Any:
    return getattr(call.operation, "layer", call.operation)  # this room does not know the wrappers


def _first_normalizations(graph: LayerGraph) -> Iterator[Call]:
    """Yields the trained BatchNormalizations that depend on no other BatchNormalization."""
    behind: set[int] = set()
    for call in graph.calls:
        layer = _normalization(call)
        is_first = not any(id(tensor) in behind for tensor in call.inputs)
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        if is_normalization or not is_first:
            behind.update(id(tensor) for tensor in call.outputs)
        if is_normalization and is_first and _is_trained(layer):
            yield call


def _is_trained(layer: keras.layers.BatchNormalization) -> bool:
    mean, variance = _statistics(layer)
    return bool((mean != 0).any() or (variance != 1).any())


def _statistics(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    return float32_array(layer.moving_mean), float32_array(layer.moving_variance)


def _far(layer: keras.layers.BatchNormalization, tensor: Any) -> str | None:
    """Returns what the layer got and what it has seen in training, in the median channel; `None` if both fit."""
    x = np.moveaxis(float32_array(tensor), layer.axis, -1)
    x = x.reshape(-1, x.shape[-1]).astype(np.float64)
    mean, variance = _statistics(layer)
    if not x.size:
        return None
    distance = np.mean((x - mean) ** 2, axis=0) / (variance + layer.epsilon)
    channel = int(np.argsort(distance)[(distance.size - 1) // 2])
    if not distance[channel] > _FAR:
        return None
    values = x[:, channel]
    return (
        f"values around {values.mean():.3g} with a deviation of {values.std():.3g} (channel {channel}), but its moving "
        f"statistics say {mean[channel]:.3g} with {np.sqrt(variance[channel]):.3g}"
    )
