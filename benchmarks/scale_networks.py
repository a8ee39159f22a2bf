"""The networks of `scale.py`: ResNet-20 of Keras and of PyTorch, and a decoder of a chosen size."""

from __future__ import annotations

import itertools
import math
from typing import Any

INPUT = (32, 32, 3)
BATCH = 64
#: Of the decoder: features, heads, rows of the embedding, tokens of a sequence.
DIM, HEADS, VOCABULARY, TOKENS = 1536, 12, 32_000, 32


def resnet20(keras: Any) -> Any:
    """ResNet-20 for 32 x 32 images (arXiv:1512.03385, section 4.2), in the given Keras: Keras 3 or tf-keras."""
    layers = keras.layers

    def conv(x, filters, size=3, strides=1):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input(INPUT)
    x = layers.ReLU()(conv(inputs, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            shortcut = conv(x, filters, 1, strides) if strides > 1 else x
            y = layers.ReLU()(conv(x, filters, strides=strides))
            x = layers.ReLU()(layers.Add()([conv(y, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def resnet20_of_torch() -> Any:
    """The same network as a `torch.nn.Module` that takes channels first."""
    from torch import nn

    def conv(channels: int, filters: int, size: int = 3, strides: int = 1) -> nn.Module:
        padding = size // 2
        return nn.Sequential(nn.Conv2d(channels, filters, size, strides, padding, bias=False), nn.BatchNorm2d(filters))

    class Block(nn.Module):
        def __init__(self, channels: int, filters: int):
            super().__init__()
            strides = 2 if channels != filters else 1
            self.shortcut = conv(channels, filters, 1, strides) if strides > 1 else nn.Identity()
            self.body = nn.Sequential(conv(channels, filters, 3, strides), nn.ReLU(), conv(filters, filters))
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.body(x) + self.shortcut(x))

    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(before, after) for before, after in itertools.pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(conv(3, 16), nn.ReLU(), *blocks, *head)


def decoder(keras: Any, millions: int) -> Any:
    """A decoder of about as many millions of weights: blocks of causal attention and an MLP, normalized before each."""
    layers = keras.layers
    inputs = keras.Input((TOKENS,), dtype="int32")
    x = layers.Embedding(VOCABULARY, DIM)(inputs)
    for _ in range(max(1, round((millions * 1e6 - VOCABULARY * DIM) / (12 * DIM**2)))):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, DIM // HEADS)(y, y, use_causal_mask=True)
        y = layers.Dense(4 * DIM, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(DIM)(y)
    return keras.Model(inputs, layers.LayerNormalization()(x))


def bytes_of(model: Any) -> int:
    """Bytes of all float32 weights of a model."""
    return 4 * sum(math.prod(variable.shape) for variable in model.weights)
