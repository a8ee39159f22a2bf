"""Three networks of five layers, small enough to evaluate every choice of bits."""

from __future__ import annotations

import keras
from keras import layers


def plain() -> keras.Model:
    """Convolutions with ReLU, and two Dense layers."""
    inputs = keras.Input((14, 14, 1), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv2")(x)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="conv3")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="plain")


def dense() -> keras.Model:
    """Dense layers only."""
    inputs = keras.Input((14, 14, 1), name="image")
    x = layers.Flatten(name="flatten")(inputs)
    for index, units in enumerate((64, 48, 32, 24), 1):
        x = layers.Dense(units, activation="relu", name=f"hidden{index}")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="dense")


def separable() -> keras.Model:
    """Depthwise and pointwise convolutions with BatchNormalization and ReLU6."""
    inputs = keras.Input((14, 14, 1), name="image")
    x = _convolution(inputs, 16, "stem", strides=2, activation="relu6")
    x = layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = _convolution(x, 32, "pointwise", 1, activation="relu6")
    x = _convolution(x, 32, "conv", strides=2, activation="relu6")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="separable")


def _convolution(x, filters: int, name: str, size: int = 3, strides: int = 1, activation: str = "relu"):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU(6.0)(x) if activation == "relu6" else layers.ReLU()(x)


NETWORKS = {"plain": plain, "separable": separable, "dense": dense}
