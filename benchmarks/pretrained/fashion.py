"""Six small networks, one of each family of `keras.applications`, trained here on Fashion-MNIST."""

from __future__ import annotations

import pathlib
import sys

import keras
import numpy as np
from keras import layers

from models import small_vit

from .network import TrainedNetwork, UnavailableError, load_or_train

sys.path.append(str(pathlib.Path(__file__).parents[2] / "examples"))


def convolution(x, filters: int, size: int = 3, strides: int = 1, activation: str | None = "relu"):
    """Convolution, BatchNormalization, activation."""
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return activate(layers.BatchNormalization()(x), activation)


def depthwise(x, strides: int, activation: str):
    """Depthwise 3x3 convolution, BatchNormalization, activation."""
    x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
    return activate(layers.BatchNormalization()(x), activation)


def activate(x, activation: str | None):
    if activation is None:
        return x
    return layers.ReLU(6.0)(x) if activation == "relu6" else layers.Activation(activation)(x)


def classifier(inputs, x, name: str) -> keras.Model:
    return keras.Model(inputs, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)), name=name)


def resnet() -> keras.Model:
    """ResNet (arXiv:1512.03385): ReLU after the sum."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = convolution(inputs, 16, strides=2)
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        y = convolution(convolution(x, filters, strides=strides), filters, activation=None)
        if filters != x.shape[-1]:
            x = convolution(x, filters, 1, strides, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return classifier(inputs, x, "resnet")


def resnet_v2() -> keras.Model:
    """ResNet with pre-activation (arXiv:1603.05027): the sum reaches the next block unchanged."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(16, 3, 2, padding="same")(inputs)
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        if filters != x.shape[-1]:
            x = layers.Conv2D(filters, 1, strides, padding="same")(y)
        y = layers.Conv2D(filters, 3, padding="same")(convolution(y, filters, strides=strides))
        x = layers.Add()([x, y])
    return classifier(inputs, layers.ReLU()(layers.BatchNormalization()(x)), "resnet_v2")


def mobilenet_v2() -> keras.Model:
    """MobileNetV2 (arXiv:1801.04381): inverted residuals, ReLU6, linear bottlenecks."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = convolution(inputs, 16, strides=2, activation="relu6")
    for filters, strides in ((16, 1), (24, 2), (24, 1), (48, 2), (48, 1), (48, 1)):
        y = convolution(x, 4 * x.shape[-1], 1, activation="relu6")
        y = convolution(depthwise(y, strides, "relu6"), filters, 1, activation=None)
        x = layers.Add()([x, y]) if strides == 1 and filters == x.shape[-1] else y
    return classifier(inputs, convolution(x, 192, 1, activation="relu6"), "mobilenet_v2")


def efficientnet() -> keras.Model:
    """EfficientNet (arXiv:1905.11946): inverted residuals, swish, squeeze and excitation."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = convolution(inputs, 16, strides=2, activation="swish")
    for filters, strides in ((16, 1), (24, 2), (24, 1), (48, 2), (48, 1), (48, 1)):
        y = convolution(x, 4 * x.shape[-1], 1, activation="swish")
        y = depthwise(y, strides, "swish")
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(y)
        squeezed = layers.Conv2D(x.shape[-1] // 4, 1, activation="swish")(squeezed)
        y = layers.Multiply()([y, layers.Conv2D(y.shape[-1], 1, activation="sigmoid")(squeezed)])
        y = convolution(y, filters, 1, activation=None)
        x = layers.Add()([x, y]) if strides == 1 and filters == x.shape[-1] else y
    return classifier(inputs, convolution(x, 192, 1, activation="swish"), "efficientnet")


def inception() -> keras.Model:
    """InceptionV3's block A (arXiv:1512.00567): four branches, concatenated."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = convolution(inputs, 16, strides=2)
    for width, blocks in ((12, 1), (24, 1), (48, 2)):
        if width > 12:
            x = layers.MaxPooling2D(3, 2, padding="same")(x)
        for _ in range(blocks):
            factorized = convolution(convolution(convolution(x, width, 1), width), width)
            pooled = convolution(layers.AveragePooling2D(3, 1, padding="same")(x), width // 2, 1)
            branches = [convolution(x, width, 1), convolution(convolution(x, width, 1), width), factorized, pooled]
            x = layers.Concatenate()(branches)
    return classifier(inputs, x, "inception")


def vit() -> keras.Model:
    """A vision transformer of 49 tokens."""
    return small_vit(28, 10, channels=1, dim=60, depth=3, patch=4)


#: By name: the builder, and the epochs of the training: resnet took four minutes of one core.
NETWORKS = {
    "resnet": (resnet, 3),
    "resnet_v2": (resnet_v2, 3),
    "mobilenet_v2": (mobilenet_v2, 3),
    "efficientnet": (efficientnet, 3),
    "inception": (inception, 3),
    "vit": (vit, 4),
}


def fashion_network(name: str, seed: int) -> TrainedNetwork:
    """Trained with this seed, or with the weights of an earlier such training; evaluated on the 10,000 test images."""
    from fashion_mnist import load_fashion_mnist

    try:
        (x_train, y_train), (x_test, y_test) = load_fashion_mnist()
    except Exception as error:
        raise UnavailableError(f"Fashion-MNIST: {error}; `make data` installs it where apt works") from error
    build, epochs = NETWORKS[name]
    keras.utils.set_random_seed(seed)
    model = build()
    load_or_train(model, f"{name}-{seed}", lambda: train(model, x_train, y_train, epochs))
    return TrainedNetwork(name, model, x_train[:256], x_test, y_test)


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int, batch_size: int = 64) -> None:
    """Adam, whose learning rate rises for an epoch and falls along a cosine; no augmentation."""
    epoch = len(images) // batch_size
    rate = keras.optimizers.schedules.CosineDecay(1e-4, (epochs - 1) * epoch, warmup_target=3e-3, warmup_steps=epoch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit = keras.backend.backend() == "jax"  # which knows no other graph; XLA compiles longer than it saves on a CPU
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=jit)
    model.fit(images[: epoch * batch_size], labels[: epoch * batch_size], batch_size, epochs, verbose=2)
