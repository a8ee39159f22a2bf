"""The networks of `tensorrt.py`: all of `keras.applications`, four of KerasHub, a U-Net, and trained ones.

The weights are random but for the last, so that the signal-to-noise ratio of these says most.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import keras
import numpy as np
from keras import applications

from models import unet
from networks import crops, residual_blocks, set_statistics
from tensorflow_quantization.model.keras_internals import sublayers
from trained import trained_network

#: Pixels of an image's side, also for networks that were trained on larger ones.
SIZE = 224
#: Of a text.
TOKENS, VOCABULARY = 128, 30_522
APPLICATIONS = tuple(name for name in sorted(dir(applications)) if name[0].isupper())
OTHERS = ("ViT", "BERT", "SegFormer", "RetinaNet", "U-Net")
#: Of `trained.py`: feed-forward networks with one input, and the name of each here.
TRAINED = {
    f"{name}, trained": name
    for name in (
        "efficientnet_lite",
        "fer",
        "magika",
        "mobilenet_v2",
        "efficientnet",
        "resnet",
        "resnet_v2",
        "inception",
        "vit",
    )
}
NETWORKS = (*APPLICATIONS, *OTHERS, *TRAINED)
#: Inputs of trained networks, at most.
TRAINED_CALIBRATION, TRAINED_EVALUATION = 64, 256
#: For `--quick`.
QUICK, QUICK_SIZE = "two residual blocks", 32

Inputs = np.ndarray | dict[str, np.ndarray]


class Subject(NamedTuple):
    """A network, what it is calibrated with, and other inputs to measure on."""

    model: keras.Model
    calibration: Inputs
    evaluation: Inputs


def subject(name: str, calibration: int, evaluation: int) -> Subject:
    """A network with so many inputs; a trained one with its own.

    Raises:
        ValueError: there is no network of this name.
        UnavailableError: the weights or data of a trained one cannot be had here.
    """
    if name not in (*NETWORKS, QUICK):
        raise ValueError(f"No network {name!r}; there are {', '.join(NETWORKS)}")
    if name in TRAINED:
        trained = trained_network(TRAINED[name])
        return Subject(
            trained.model, trained.calibration[:TRAINED_CALIBRATION], trained.evaluation[:TRAINED_EVALUATION]
        )
    keras.utils.set_random_seed(0)
    model = _application(name) if name in APPLICATIONS else _BUILDERS[name]()
    for layer in sublayers(model):
        if type(layer).__name__ == "LayerScale":
            # A start at 1e-6 takes the blocks out of the network, which training puts back.
            layer.gamma.assign(np.full(layer.gamma.shape, 0.2, "float32"))
    set_statistics(model, _inputs(name, 8, seed=2))
    return Subject(model, _inputs(name, calibration, seed=0), _inputs(name, evaluation, seed=1))


def _application(name: str) -> keras.Model:
    return getattr(applications, name)(weights=None, input_shape=(SIZE, SIZE, 3), classifier_activation=None)


def _inputs(name: str, count: int, seed: int) -> Inputs:
    if name == "BERT":
        return _texts(count, seed)
    images = crops(QUICK_SIZE if name == QUICK else SIZE, count, seed)
    if name in APPLICATIONS:
        return sys.modules[getattr(applications, name).__module__].preprocess_input(images)
    return images / 127.5 - 1


def _texts(count: int, seed: int) -> dict[str, np.ndarray]:
    """Random tokens, padded to different lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(TOKENS // 2, TOKENS + 1, (count, 1))
    mask = (np.arange(TOKENS) < lengths).astype("int32")
    tokens = rng.integers(1, VOCABULARY, (count, TOKENS)).astype("int32")
    return {"token_ids": tokens * mask, "segment_ids": np.zeros_like(mask), "padding_mask": mask}


def _vit() -> keras.Model:
    """As wide and deep as DeiT-tiny."""
    from keras_hub import models

    backbone = models.ViTBackbone((SIZE, SIZE, 3), 16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
    return models.ViTImageClassifier(backbone=backbone, num_classes=1000)


def _bert() -> keras.Model:
    """As wide and deep as "bert_small_en_uncased"."""
    from keras_hub import models

    backbone = models.BertBackbone(
        VOCABULARY, num_layers=4, num_heads=8, hidden_dim=512, intermediate_dim=2048, max_sequence_length=TOKENS
    )
    return models.BertTextClassifier(backbone=backbone, num_classes=3)


def _segformer() -> keras.Model:
    """SegFormer-B0."""
    from keras_hub import models

    encoder = models.MiTBackbone(
        layerwise_depths=[2, 2, 2, 2],
        num_layers=4,
        layerwise_num_heads=[1, 2, 5, 8],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        image_shape=(SIZE, SIZE, 3),
        hidden_dims=[32, 64, 160, 256],
    )
    backbone = models.SegFormerBackbone(image_encoder=encoder, projection_filters=256)
    return models.SegFormerImageSegmenter(backbone=backbone, num_classes=19)


def _retinanet() -> keras.Model:
    """A detector on ResNet18."""
    from keras_hub import models

    encoder = models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(SIZE, SIZE, 3),
    )
    backbone = models.RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=5, use_p5=False, image_shape=(SIZE, SIZE, 3)
    )
    return models.RetinaNetObjectDetector(backbone=backbone, num_classes=20)


_BUILDERS = {
    "ViT": _vit,
    "BERT": _bert,
    "SegFormer": _segformer,
    "RetinaNet": _retinanet,
    "U-Net": lambda: unet(SIZE),
    QUICK: lambda: residual_blocks(QUICK_SIZE),
}
