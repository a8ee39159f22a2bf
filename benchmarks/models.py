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


def small_vit(image_size: int = 224, classes: int = 1000) -> keras.Model:
    """DeiT-tiny (arXiv:2012.12877, table 1), with the mean of the tokens in the place of the class token; logits.

    Args:
        image_size: a multiple of the patches' 16 pixels.
        classes: of the output.
    """
    dim, depth, heads, patch = 192, 12, 3, 16
    inputs = keras.Input((image_size, image_size, 3), name="image")
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
