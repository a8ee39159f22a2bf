"""Whole networks as they are after training, without any training."""

import keras
import numpy as np

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter, compute


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

    def settled(call, args, kwargs):
        layer = call.operation
        if isinstance(layer, keras.layers.BatchNormalization):
            size = float(np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(args[0])))))
            layer.moving_mean.assign(rng.normal(0, 0.1 * size, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape) * size**2)
        return compute(call, args, kwargs)

    Interpreter(LayerGraph.trace(model).flatten()).run_batches([x], settled)
    return model
