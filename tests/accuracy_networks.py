"""Small networks and data for tests of accuracy: random weights, statistics as training leaves them."""

import keras
import numpy as np
from keras import layers

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.accuracy.channel_factors import (
    divide_source,
    inner_products,
    multiply_reader,
    reading_kernels,
    rescale_inside,
    rescalings,
)
from tensorflow_quantization.model.graph import LayerGraph


def images(count=64, seed=0):
    return np.random.default_rng(seed).random((count, 16, 16, 3), "float32")


def smooth_images(count=128, seed=0):
    """Squares of one color and some noise: neighbours are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    squares = rng.random((count, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(squares + 0.1 * rng.normal(size=squares.shape), 0, 1).astype("float32")


def residual():
    """Two inverted residuals, as in MobileNetV2; it returns a map."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    for index in range(2):
        y = layers.Conv2D(32, 1, activation="relu", name=f"expand_{index}")(x)
        y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depthwise_{index}")(y)
        x = layers.Add(name=f"sum_{index}")([x, layers.Conv2D(16, 1, name=f"project_{index}")(y)])
    return keras.Model(inputs, x)


def depthwise():
    """Depthwise convolutions, whose kernels lose most by rounding to nearest."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    for index in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"depthwise_{index}")(x)
        x = layers.ReLU(name=f"relu_{index}")(layers.BatchNormalization(name=f"norm_{index}")(x))
        x = layers.Conv2D(16, 1, activation="relu", name=f"pointwise_{index}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return with_statistics(keras.Model(inputs, layers.Dense(10, name="scores")(x)))


def small():
    """One of each kind of `depthwise`, for what does not depend on the network."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise_0")(inputs)
    x = layers.ReLU(name="relu_0")(layers.BatchNormalization(name="norm_0")(x))
    x = layers.Conv2D(8, 1, activation="relu", name="pointwise_0")(x)
    return with_statistics(keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x)))


def branches():
    """All that a factor of a channel can pass, and attention."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(16, 1, name="pointwise")(x)
    x = layers.MaxPooling2D(name="pool")(layers.PReLU(shared_axes=[1, 2], name="prelu")(x))
    x = layers.ReLU(name="relu_groups")(layers.Conv2D(32, 3, groups=4, padding="same", name="groups")(x))
    x = layers.LeakyReLU(name="leaky")(layers.Conv2DTranspose(8, 3, strides=2, name="transposed")(x))
    x = layers.ReLU(name="relu_separable")(layers.SeparableConv2D(8, 3, strides=2, name="separable")(x))
    flat = layers.Dense(12, activation="relu", name="fc")(layers.Flatten(name="flat")(x))
    tokens = layers.LayerNormalization(name="norm_1")(layers.Reshape((-1, 8), name="tokens")(x))
    tokens = layers.LayerNormalization(name="norm_2")(layers.MultiHeadAttention(2, 4, name="attention")(tokens, tokens))
    tokens = layers.EinsumDense("abc,cd->abd", (None, 12), bias_axes="d", name="mix")(tokens)
    x = layers.Add(name="sum")([flat, layers.GlobalAveragePooling1D(name="mean")(tokens)])
    return with_statistics(keras.Model(inputs, layers.Dense(5, name="scores")(x)))


def with_statistics(model):
    """The model, each BatchNormalization with the statistics of a batch."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(images(32, seed=9), training=True)
    return model


def rescale(model, largest=200.0, seed=3):
    """Gives channels random factors, up to `largest`, wherever that keeps the function."""
    rng = np.random.default_rng(seed)
    limit = np.log(largest)
    for place in rescalings(LayerGraph.trace(model).flatten()):
        factors = np.exp(rng.uniform(-limit, limit, place.index.max() + 1)).astype("float32")
        divide_source(place.source, factors)
        for call in place.readers:
            for kernel, axis in reading_kernels(call, place.tensor):
                multiply_reader(kernel, axis, getattr(call.operation, "groups", 1), factors[place.index])
    for call in inner_products(LayerGraph.trace(model).flatten()):
        channels = call.operation.pointwise_kernel.shape[-2]
        rescale_inside(call, np.exp(rng.uniform(-limit, limit, channels)).astype("float32"))
    return model


def quantized(model, **arguments):
    return calibrate(quantize_model(model, **arguments), images(), verbose=0)


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def decibels(expected, got):
    return 10 * np.log10(np.sum(expected**2) / np.sum((expected - got) ** 2))


def rounding_problem(seed, groups=2, size=6, channels=3, heavy=False):
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(2, (groups, size, channels)) if heavy else rng.standard_normal((groups, size, channels))
    scale = np.broadcast_to(np.abs(weight).max(axis=1, keepdims=True) / 7, weight.shape)
    x = rng.standard_normal((groups, 20, size)) + rng.uniform(0, 2, (groups, 1, size))
    moment = np.swapaxes(x, 1, 2) @ x / 20
    return weight, scale, np.zeros(weight.shape, bool), moment


def squared_errors(integers, weight, scale, moment):
    """The mean square of the output's error, for each output channel, one sum after the other."""
    error = integers * scale - weight
    return np.array(
        [
            [sum(e[i] * m[i, j] * e[j] for i in range(len(e)) for j in range(len(e))) for e in group.T]
            for group, m in zip(error, moment, strict=True)
        ]
    )
