"""Networks that `keras.applications` does not have."""

from __future__ import annotations

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="benchmarks")
class PositionEmbedding(layers.Layer):
    """Adds a learned vector to each token of (batch, tokens, features)."""

    def build(self, input_shape):
        self.positions = self.add_weight(shape=input_shape[1:], initializer="random_normal", name="positions")

    def call(self, x):
        return x + self.positions


def small_vit(
    image_size: int = 224, classes: int = 1000, channels: int = 3, dim: int = 192, depth: int = 12, patch: int = 16
) -> keras.Model:
    """DeiT-tiny (arXiv:2012.12877, table 1) by default, with the mean of the tokens as the class token; logits.

    Args:
        image_size: a multiple of `patch`.
        classes: of the output.
        channels: of the image.
        dim: features of a token; `MultiHeadAttention` has three heads.
        depth: number of blocks.
        patch: pixels of a patch's side.
    """
    heads = 3
    inputs = keras.Input((image_size, image_size, channels), name="image")
    x = layers.Conv2D(dim, patch, patch, name="patches")(inputs)
    x = PositionEmbedding(name="positions")(layers.Reshape((-1, dim), name="tokens")(x))
    for block in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"block{block}_norm1")(x)
        y = layers.MultiHeadAttention(heads, dim // heads, name=f"block{block}_attention")(y, y)
        x = layers.Add(name=f"block{block}_add1")([x, y])
        y = layers.LayerNormalization(epsilon=1e-6, name=f"block{block}_norm2")(x)
        y = layers.Dense(4 * dim, activation="gelu", name=f"block{block}_mlp1")(y)
        x = layers.Add(name=f"block{block}_add2")([x, layers.Dense(dim, name=f"block{block}_mlp2")(y)])
    x = layers.GlobalAveragePooling1D(name="mean")(layers.LayerNormalization(epsilon=1e-6, name="norm")(x))
    return keras.Model(inputs, layers.Dense(classes, name="classifier")(x), name="small_vit")


def unet(image_size: int = 224, classes: int = 2, filters: int = 32, depth: int = 4) -> keras.Model:
    """U-Net (arXiv:1505.04597) with padding and BatchNormalization, half as wide by default; a logit a pixel and class.

    Args:
        image_size: a multiple of `2**depth`.
        classes: of a pixel.
        filters: of the first convolutions; each level below has twice as many.
        depth: number of times that the resolution is halved.
    """

    def convolutions(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = keras.Input((image_size, image_size, 3), name="image")
    x, shortcuts = inputs, []
    for level in range(depth):
        shortcuts.append(convolutions(x, filters * 2**level))
        x = layers.MaxPooling2D()(shortcuts[-1])
    x = convolutions(x, filters * 2**depth)
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2)(x)
        x = convolutions(layers.Concatenate()([shortcuts[level], x]), filters * 2**level)
    return keras.Model(inputs, layers.Conv2D(classes, 1, name="logits")(x), name="unet")
