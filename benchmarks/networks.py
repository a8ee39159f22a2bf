"""The networks that latency is measured on: random weights, activations as in trained ones, and images for them."""

from __future__ import annotations

import keras
import numpy as np
from keras import applications, layers

from models import small_vit
from tensorflow_quantization.model.keras_internals import sublayers

#: By name: the module of `keras.applications` whose preprocessing it has, and the size of its images.
APPLICATIONS = {
    "ResNet50": (applications.resnet, 224),
    "ResNet50V2": (applications.resnet_v2, 224),
    "MobileNet": (applications.mobilenet, 224),
    "MobileNetV2": (applications.mobilenet_v2, 224),
    "EfficientNetB0": (applications.efficientnet, 224),
    "InceptionV3": (applications.inception_v3, 299),
}
NETWORKS = (*APPLICATIONS, "ViT")
#: For `--quick`.
QUICK = "two residual blocks"


def network(name: str) -> tuple[keras.Model, int]:
    """A network that gives logits, and the size of its images."""
    keras.utils.set_random_seed(0)
    if name == QUICK:
        size, model = 64, residual_blocks(64)
    elif name == "ViT":
        size, model = 224, small_vit(224, 1000)
    else:
        size = APPLICATIONS[name][1]
        model = getattr(applications, name)(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    set_statistics(model, images(name, size, 8, seed=2))
    return model, size


def residual_blocks(size: int) -> keras.Model:
    """Two residual blocks between a first convolution and a classifier."""

    def convolution(x, activation="relu"):
        x = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(x))
        return layers.Activation(activation)(x)

    inputs = keras.Input((size, size, 3), name="image")
    x = convolution(inputs)
    for _ in range(2):
        x = layers.ReLU()(layers.Add()([x, convolution(convolution(x), "linear")]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def set_statistics(model: keras.Model, batch: np.ndarray | dict[str, np.ndarray]) -> None:
    """Give each BatchNormalization the statistics of a batch, as training would: then no activation grows or fades."""
    normalizations = [layer for layer in sublayers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(batch, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum


def images(name: str, size: int, count: int, seed: int) -> np.ndarray:
    """Random crops of photographs, preprocessed as the network wants it."""
    module = APPLICATIONS.get(name, (applications.mobilenet_v2,))[0]
    return module.preprocess_input(crops(size, count, seed))


def crops(size: int, count: int, seed: int) -> np.ndarray:
    """Random crops of the photographs that come with scikit-learn, (count, size, size, 3) float32 from 0 to 255."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        top, left = (int(rng.integers(0, full - size + 1)) for full in photograph.shape[:2])
        crop = photograph[top : top + size, left : left + size]
        found.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return np.stack(found).astype("float32")
