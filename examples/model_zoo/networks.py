"""The networks of the old toolkit's model zoo, with their images and the accuracies that the old toolkit reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import keras
from keras import applications


@dataclass(frozen=True)
class Network:
    """One network of `keras.applications`.

    Attributes:
        build: its constructor.
        module: the module with its `preprocess_input`, for images of 0 to 255.
        size: height and width of its images, in pixels.
        reported: the old toolkit's top-1 accuracies on ImageNet, in percent: float, after calibration, after training,
            the last two in TensorRT 8.4 on an A100; `None`: not known here.
    """

    build: Callable[..., keras.Model]
    module: ModuleType
    size: int
    reported: tuple[float, float, float] | None = None


NETWORKS = {
    "resnet50v1": Network(applications.ResNet50, applications.resnet, 224, (75.05, 74.96, 75.12)),
    "resnet50v2": Network(applications.ResNet50V2, applications.resnet_v2, 224, (75.36, 75.48, 75.65)),
    "resnet101v1": Network(applications.ResNet101, applications.resnet, 224),
    "resnet101v2": Network(applications.ResNet101V2, applications.resnet_v2, 224),
    "mobilenetv1": Network(applications.MobileNet, applications.mobilenet, 224, (70.60, 69.31, 70.43)),
    "mobilenetv2": Network(applications.MobileNetV2, applications.mobilenet_v2, 224, (71.77, 70.87, 71.62)),
    "efficientnetb0": Network(applications.EfficientNetB0, applications.efficientnet, 224, (76.97, 71.71, 75.82)),
    "efficientnetb3": Network(applications.EfficientNetB3, applications.efficientnet, 300, (81.36, 78.88, 79.48)),
    "inceptionv3": Network(applications.InceptionV3, applications.inception_v3, 299, (77.86, 77.73, 78.08)),
}
