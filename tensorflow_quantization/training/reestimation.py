"""`reestimate_batch_normalization`: estimates the statistics of BatchNormalization anew, after training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tensorflow_quantization.calibration.calibrate import layer_paths
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.interpreter import Interpreter, compute
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.training.student import normalizations, student_of, sync
from tensorflow_quantization.wrappers import inner_layer
from tensorflow_quantization.wrappers.quantized_once import quantized_once


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
    layers = _trained(graph)
    if not layers:
        return model
    counted = _Moments(graph, layers)
    sums, rows, paths = [np.zeros((), np.float64)] * len(layers), np.zeros(len(layers)), layer_paths(model)
    with quantized_once(model):
        for step, batch in enumerate(input_batches(graph, data, batch_size, "data")):
            if step == steps:
                break
            for i, replicas in enumerate(counted.predict_on_batch(tree.pack_sequence_as(graph.input_structure, batch))):
                found = replicas[0]  # each sees the whole batch
                if not np.isfinite(found).all():
                    path = paths[id(layers[i])]
                    raise ValueError(f"The input of {path!r} is NaN or infinite. Check the data and the weights.")
                count, mean, variance = found.astype(np.float64)
                rows[i] += count[0]
                sums[i] = sums[i] + count * np.stack([mean, variance + mean**2])
    if not rows.any():
        raise ValueError("The data is empty: it has no batch. Pass samples to estimate the statistics from.")
    for layer, total, count in zip(layers, sums, rows, strict=True):
        if count:  # else nothing calls the layer
            mean, square = total / count
            layer.moving_mean.assign(mean.astype(np.float32))
            layer.moving_variance.assign(np.maximum(square - mean**2, 0.0).astype(np.float32))
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


class _Moments(keras.Model):
    """Returns, for each layer, the (rows, mean, variance) of its inputs in the batch, an array (1, 3, channels).

    A layer that is called several times gets the moments of its last call.
    """

    def __init__(self, graph: LayerGraph, layers: list[keras.layers.BatchNormalization]):
        super().__init__(name="moments")
        self.network = graph.model  # its variables are then variables of this model
        self._interpreter = Interpreter(graph.flatten())
        self._index = {id(layer): i for i, layer in enumerate(layers)}
        self.built = True

    def call(self, inputs):
        found: dict[int, Any] = {}

        def function(call, args, kwargs):
            layer = inner_layer(call.operation)
            if id(layer) not in self._index:
                return compute(call, args, kwargs)
            quantizer = next(iter(getattr(call.operation, "input_quantizers", ())), None)
            x = ops.cast(args[0] if quantizer is None else quantizer(args[0]), "float32")
            axes = [a for a in range(len(x.shape)) if a != layer.axis % len(x.shape)]
            mean, variance = ops.moments(x, axes)
            rows = ops.cast(ops.size(x), "float32") / mean.shape[0]
            found[self._index[id(layer)]] = ops.stack([ops.ones_like(mean) * rows, mean, variance])[None]
            # The scope hides an outer one, so it gets all variables of the layer.
            values = {id(v): ops.convert_to_tensor(v) for v in call.operation.variables}
            values.update({id(layer.moving_mean): mean, id(layer.moving_variance): variance})
            with keras.StatelessScope([(v, values[id(v)]) for v in call.operation.variables]):
                return compute(call, args, kwargs)

        self._interpreter.run(inputs, function)
        return [found.get(i, ops.zeros((1, 3, 1))) for i in range(len(self._index))]
