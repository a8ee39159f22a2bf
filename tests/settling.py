"""Whole networks as they are after training, without any training."""

import keras
import numpy as np

from tensorflow_quantization.export.verification.pieces import model_inputs
from tensorflow_quantization.model.graph import LayerGraph, substitute


def settle(model, x):
    """Random biases and normalizations, these with the size of what they normalize on `x`; returns the model.

    So activations keep their size through any number of layers, and float rounding stays as small as it is in trained
    networks.
    """
    rng = np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        if kind == "gamma":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "bias"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    graph = LayerGraph.trace(model).flatten()
    values = {id(t): keras.ops.convert_to_tensor(a) for t, a in zip(graph.inputs, model_inputs(graph, x), strict=True)}
    for call in graph.calls:
        args, kwargs = (substitute(part, lambda t: values[id(t)]) for part in (call.args, call.kwargs))
        if "training" in kwargs:
            kwargs["training"] = False
        layer = call.operation
        if isinstance(layer, keras.layers.BatchNormalization):
            size = float(np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(args[0])))))
            layer.moving_mean.assign(rng.normal(0, 0.1 * size, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape) * size**2)
        results = keras.tree.flatten(layer(*args, **kwargs))
        values.update((id(t), y) for t, y in zip(call.outputs, results, strict=True))
    return model
