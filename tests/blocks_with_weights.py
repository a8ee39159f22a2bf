"""Networks of blocks that compute with weights of their own and constants, or that are called on several sizes."""

import keras
import numpy as np
from keras import layers, ops
from small_models import randomize


class Patches(layers.Layer):
    """The first layer of a vision transformer: patches, a class token and positions from a table."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.patches = layers.Conv2D(8, 4, strides=4, name="patches")
        self.positions = layers.Embedding(5, 8, name="positions")

    def build(self, input_shape):
        self.token = self.add_weight(name="token", shape=(1, 1, 8), regularizer="l2")
        self.patches.build(input_shape)
        self.positions.build((1, 5))
        self.indices = ops.expand_dims(ops.arange(5), axis=0)

    def call(self, inputs):
        x = ops.reshape(self.patches(inputs), (-1, 4, 8))
        x = ops.concatenate([ops.tile(self.token, (ops.shape(inputs)[0], 1, 1)), x], axis=1)
        return x + self.positions(self.indices)


class Scaled(layers.Layer):
    """A residual branch that is scaled by a weight for each channel, in a list and a dict of weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(8, name="dense")

    def build(self, input_shape):
        self.scales = [self.add_weight(name=f"scale{i}", shape=(8,), initializer="ones") for i in range(2)]
        self.shifts = {"before": self.add_weight(name="before", shape=(8,))}
        self.dense.build(input_shape)

    def call(self, inputs):
        return inputs + self.scales[1] * self.dense(self.scales[0] * inputs + self.shifts["before"])


class Head(layers.Layer):
    """A head of a detector, which is called on each level of a pyramid."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")
        self.boxes = layers.Conv2D(4, 1, name="boxes")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.boxes.build((*input_shape[:-1], 8))

    def call(self, inputs):
        x = self.boxes(keras.activations.relu(self.conv(inputs)))
        return ops.reshape(x, (ops.shape(x)[0], -1, 4))


def transformer():
    inputs = keras.Input((8, 8, 3))
    x = Scaled(name="scaled")(Patches(name="embedding")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(5, name="head")(x[:, 0])))


def detector():
    inputs = keras.Input((8, 8, 3))
    small = layers.Conv2D(3, 3, strides=2, padding="same", activation="relu", name="down")(inputs)
    head = Head(name="head")
    return randomize(keras.Model(inputs, ops.concatenate([head(inputs), head(small)], axis=1)))


IMAGES = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
