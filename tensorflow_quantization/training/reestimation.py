"""`reestimate_batch_normalization`: estimates the statistics of BatchNormalization anew, after training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.interpreter import Interpreter, compute
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.training.student import normalizations, student_of, sync
from tensorflow_quantization.wrappers import inner_layer


class ReestimateBatchNormalization(keras.callbacks.Callback):
    """Calls `reestimate_batch_normalization` at the end of `fit`.

    Args:
        data: as for `reestimate_batch_normalization`.
        steps: int, the greatest number of batches; default `None`, which is all.
    """

    def __init__(self, data: Any, steps: int | None = None):
        super().__init__()
        self.data, self.steps = data, steps

    def on_train_end(self, logs=None):
        sync(self.model)
        reestimate_batch_normalization(student_of(self.model), self.data, steps=self.steps)


def reestimate_batch_normalization(
    model: keras.Model, data: Any, *, steps: int | None = None, batch_size: int = BATCH_SIZE
) -> keras.Model:
    """Estimates the moving statistics of each BatchNormalization anew, for the weights that the model has now.

    In training, a rounded weight jumps between two integers, and the moving averages mix both (arXiv:2203.11086,
    section 4). Here, each layer gets the mean and the variance of its input over all batches, while all layers before
    normalize with the statistics of the batch. A layer that training leaves alone is unchanged: it is not trainable, or
    in a model that is called with `training=False`. So is a layer within a custom layer.

    Examples:
        >>> quantized = calibrate(quantize_model(model), images, verbose=0)
        >>> quantized = reestimate_batch_normalization(quantized, images)

    Args:
        model: a model, quantized or float; changed in place.
        data: inputs as `calibrate` takes them, without labels.
        steps: int, the greatest number of batches; default `None`, which is all.
        batch_size: int, samples in a batch of arrays; default 32.

    Returns:
        `model`.

    Raises:
        ValueError: the data is empty or does not fit the inputs of the model, or the input of a layer is NaN or
            infinite. The statistics are as before then.
    """
    graph = LayerGraph.trace(model)
    moments = {id(layer): _Moments(layer) for layer in _trained(graph)}
    if not moments:
        return model

    def function(call, args, kwargs):
        moment = moments.get(id(inner_layer(call.operation)))
        if moment is not None:
            quantizer = next(iter(getattr(call.operation, "input_quantizers", ())), None)
            moment.update(args[0] if quantizer is None else quantizer(args[0]), call.path)
        return compute(call, args, kwargs)

    interpreter, done = Interpreter(graph.flatten()), False
    try:
        for step, batch in enumerate(input_batches(graph, data, batch_size, "data")):
            if step == steps:
                break
            interpreter.run(batch, function)
            done = True
        if not done:
            raise ValueError("The data is empty: it has no batch. Pass samples to estimate the statistics from.")
    except BaseException:
        for moment in moments.values():
            moment.restore()
        raise
    for moment in moments.values():
        moment.finish()
    return model


def _trained(graph: LayerGraph) -> list[keras.layers.BatchNormalization]:
    """Returns the layers whose statistics training moves."""
    fixed = {
        id(layer)
        for call in graph.calls
        if call.is_layer and call.kwargs.get("training") is False
        for layer in (inner_layer(call.operation), *sublayers(call.operation))
    }
    return [layer for layer in normalizations(graph.model) if layer.trainable and id(layer) not in fixed]


class _Moments:
    """Sums up the moments of the input of a BatchNormalization."""

    def __init__(self, layer: keras.layers.BatchNormalization):
        self._layer = layer
        self._before = [np.array(float32_array(v)) for v in (layer.moving_mean, layer.moving_variance)]
        self._count, self._sum, self._squares = 0, np.zeros(()), np.zeros(())

    def update(self, x: Any, path: str) -> None:
        """Adds an input, and lets the layer normalize with its statistics."""
        axis = self._layer.axis % len(x.shape)
        axes = [a for a in range(len(x.shape)) if a != axis]
        mean, variance = (float32_array(m) for m in ops.moments(ops.cast(x, "float32"), axes))
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise ValueError(f"The input of {path!r} is NaN or infinite. Check the data and the weights before it.")
        count = int(np.prod([x.shape[a] for a in axes]))
        self._count += count
        self._sum = self._sum + count * mean.astype(np.float64)
        self._squares = self._squares + count * (variance.astype(np.float64) + mean.astype(np.float64) ** 2)
        self._assign(mean, variance)

    def finish(self) -> None:
        """Sets the statistics of all inputs; a layer that no data reached keeps its own."""
        if self._count:
            mean = self._sum / self._count
            self._assign(mean, np.maximum(self._squares / self._count - mean**2, 0.0))

    def restore(self) -> None:
        self._assign(*self._before)

    def _assign(self, mean: np.ndarray, variance: np.ndarray) -> None:
        self._layer.moving_mean.assign(mean.astype(np.float32))
        self._layer.moving_variance.assign(variance.astype(np.float32))
