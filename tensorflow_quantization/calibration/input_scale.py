"""`warn_of_scale`: warns if calibration data has another scale than the data that the model was trained on.

The moving mean and variance of the first BatchNormalizations, and the mean and variance of Normalization layers, say
what training data looked like there. Images from 0 to 255 in a network that was trained on 0 to 1 would give ranges
that are 255 times too wide, and images that are divided by 255 twice ranges that are 255 times too narrow, without any
error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

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

#: Data is suspicious, too, if its variance is less than this part of the moving variance in half or more of the
#: channels: a deviation below 1/100. A second division by 127.5 or 255 brings it to 1/127.5 or 1/255. Images whose grey
#: levels deviate by 64 in training would deviate by less than one level.
_FLAT = 1e-4
#: Below this part of the greatest value, a deviation is rounding: the data is constant, as a black image is.
_CONSTANT = 1e-6


class Mismatch(NamedTuple):
    """How data differs from training data.

    Attributes:
        text: a sentence with the layer and both.
        small: whether the data varies too little; else it is too large or shifted.
    """

    text: str
    small: bool


def warn_of_scale(model: keras.Model, batch: Any) -> None:
    """Warns if a batch is far outside what the first BatchNormalizations of a model have seen in training.

    Args:
        model, batch: see `scale_mismatch`.
    """
    mismatch = scale_mismatch(model, batch)
    if mismatch is not None:
        warn_user(
            f"{mismatch.text} The calibration data seems to have another scale than the training data, for example "
            + ("divided by 255 twice" if mismatch.small else "0 to 255 instead of 0 to 1")
            + ": preprocess it as in training."
        )


def scale_mismatch(model: keras.Model, batch: Any) -> Mismatch | None:
    """Returns how a batch differs from what the first BatchNormalizations of a model have seen in training.

    The same for Normalization layers and the data that they were adapted to. `None` if it does not differ. A model that
    cannot be traced, and a layer that was never trained or adapted, are not checked.

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
            return Mismatch(f"Layer {call.path!r} got {far.text}.", far.small)
    return None


def judges_scale(model: keras.Model) -> bool:
    """Whether a layer of the model has statistics by which `scale_mismatch` judges its inputs."""
    try:
        return any(True for _ in _first_normalizations(LayerGraph.trace(model).flatten()))
    except ValueError:
        return False


def _normalization(call: Call) -> Any:
    return getattr(call.operation, "layer", call.operation)  # this room does not know the wrappers


def _first_normalizations(graph: LayerGraph) -> Iterator[Call]:
    """Yields the trained BatchNormalizations that depend on no other, and adapted Normalizations."""
    behind: set[int] = set()
    for call in graph.calls:
        layer = _normalization(call)
        is_first = not any(id(tensor) in behind for tensor in call.inputs)
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        if is_normalization or not is_first:
            behind.update(id(tensor) for tensor in call.outputs)
        if ((is_normalization and is_first) or _is_adaptable(layer)) and _is_trained(layer):
            yield call


def _is_adaptable(layer: Any) -> bool:
    """Whether a layer is a Normalization with a mean for each channel, the last axis, or one for all."""
    if not isinstance(layer, keras.layers.Normalization) or layer.invert or layer.mean is None:
        return False
    shape = layer.mean.shape
    return math.prod(shape) in (1, *shape[-1:])


def _is_trained(layer: keras.layers.Layer) -> bool:
    mean, variance = _statistics(layer)
    return bool((mean != 0).any() or (variance != 1).any())


def _statistics(layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(layer, keras.layers.Normalization):
        return float32_array(layer.mean).reshape(-1), float32_array(layer.variance).reshape(-1)
    return float32_array(layer.moving_mean), float32_array(layer.moving_variance)


def _far(layer: keras.layers.Layer, tensor: Any) -> Mismatch | None:
    """Returns what the layer got and what it has seen in training, in the median channel; `None` if both fit."""
    is_batch = isinstance(layer, keras.layers.BatchNormalization)
    x = np.moveaxis(float32_array(tensor), layer.axis if is_batch else -1, -1)
    x = x.reshape(-1, x.shape[-1]).astype(np.float64)
    if not x.size:
        return None
    mean, variance = (np.broadcast_to(values, x.shape[1:]) for values in _statistics(layer))
    epsilon = layer.epsilon if is_batch else keras.backend.epsilon()
    distance = np.mean((x - mean) ** 2, axis=0) / (variance + epsilon)
    found = np.var(x, axis=0)
    moves = np.sqrt(found) > _CONSTANT * np.abs(x).max(axis=0)
    share = np.where(moves & (variance > 0), found / np.maximum(variance, np.finfo(np.float64).tiny), np.inf)
    half = (distance.size - 1) // 2
    far, flat = int(np.argsort(distance)[half]), int(np.argsort(share)[distance.size // 2])
    if distance[far] > _FAR:
        channel, small = far, False
    elif share[flat] < _FLAT:
        channel, small = flat, True
    else:
        return None
    values = x[:, channel]
    text = (
        f"values around {values.mean():.3g} with a deviation of {values.std():.3g} (channel {channel}), but its "
        f"statistics of the training say {mean[channel]:.3g} with {np.sqrt(variance[channel]):.3g}"
    )
    return Mismatch(text, small)
