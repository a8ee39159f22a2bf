"""What tests of the command `quantize` work on: a small model and a folder of images."""

import keras
import numpy as np
from keras import layers
from PIL import Image
from small_models import randomize

from tensorflow_quantization_cli import main


def small_model(*, rescaling=True):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs) if rescaling else inputs
    x = layers.Conv2D(4, 3, name="conv", activation="relu")(x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="scores")(layers.Flatten(name="flatten")(x))))


def write_job(folder):
    """Writes `model.keras` and 20 images of several sizes and kinds in `images/`, in two folders."""
    small_model().save(folder / "model.keras")
    rng = np.random.default_rng(0)
    for index in range(20):
        inner = folder / "images" / ("cats" if index % 2 else "dogs")
        inner.mkdir(parents=True, exist_ok=True)
        colours = rng.integers(0, 256, (6, 6, 3), "uint8").repeat(2 + index % 3, axis=0)
        Image.fromarray(colours).save(inner / f"{index}.{('jpg', 'png', 'JPEG')[index % 3]}")
    (folder / "images" / "notes.txt").write_text("no image")


def quantized(*arguments, data="images", output="model.onnx"):
    return main(["quantize", "model.keras", "--data", data, "-o", output, *arguments])
