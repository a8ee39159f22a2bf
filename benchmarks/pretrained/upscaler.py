"""Super-resolution: npm's @upscalerjs/default-model, a residual dense network that doubles an image's sides."""

from __future__ import annotations

import json
import pathlib

import keras
import numpy as np
from keras import layers

from .network import TrainedNetwork
from .packages import npm
from .photographs import CALIBRATION, EVALUATION, crops, resize

#: Of the small image, in pixels.
SIZE = 64


def upscaler_network() -> TrainedNetwork:
    """Images of 0 to 255; the targets are the photographs that the inputs are downscaled from."""
    folder = npm("@upscalerjs/default-model", "1.0.0") / "models"
    model = residual_dense_network()
    weights = read_weights(folder / "model.json")
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([weights[f"{layer.name}/kernel"], weights[f"{layer.name}/bias"]])
    large = crops(EVALUATION, 2 * SIZE)
    calibration, evaluation = (
        resize(images, SIZE).astype("float32") for images in (crops(CALIBRATION, 2 * SIZE), large)
    )
    return TrainedNetwork("upscaler", model, calibration, evaluation, targets=large.astype("float32"))


def residual_dense_network() -> keras.Model:
    """The layers of model.json with their names (arXiv:1802.08797, two blocks of one convolution)."""

    def convolution(name, filters, size=3):
        return layers.Conv2D(filters, size, padding="same", name=name)

    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    shallow = convolution("F_m1", 64)(inputs)
    x = convolution("F_0", 64)(shallow)
    blocks = []
    for index in (1, 2):
        y = layers.ReLU()(convolution(f"F_{index}_1", 4)(x))
        y = convolution(f"LFF_{index}", 64, 1)(layers.Concatenate()([x, y]))
        x = layers.Add()([y, x])
        blocks.append(x)
    x = convolution("GFF_1", 64, 1)(layers.Concatenate()(blocks))
    x = layers.Add()([convolution("GFF_2", 64)(x), shallow])
    x = layers.ReLU()(convolution("UPN1", 64, 5)(x))
    x = layers.ReLU()(convolution("UPN2", 32)(x))
    x = layers.UpSampling2D(2, name="UPsample")(convolution("UPN3", 12)(x))
    return keras.Model(inputs, convolution("SR", 3)(x), name="upscaler")


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of a TF.js layers-model by name: float32, one after the other in the files of each group."""
    weights = {}
    for group in json.loads(path.read_text())["weightsManifest"]:
        values = np.frombuffer(b"".join((path.parent / shard).read_bytes() for shard in group["paths"]), "<f4")
        for entry in group["weights"]:
            size = int(np.prod(entry["shape"]))
            weights[entry["name"]] = values[:size].reshape(entry["shape"])
            values = values[size:]
    return weights
