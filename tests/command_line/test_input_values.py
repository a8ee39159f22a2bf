"""Warnings about the values of samples: what is found, and what raises no alarm."""

import argparse

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization_cli.input_values import warn_of_inputs

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (8, 8, 8, 3)).astype("float32")


def convolution(*before, channels=3):
    inputs = keras.Input((8, 8, channels), name="image")
    x = inputs
    for layer in before:
        x = layer(x)
    return keras.Model(inputs, layers.Conv2D(2, 3)(x))


def rescaling(scale=1 / 255, offset=0.0):
    return layers.Rescaling(scale, offset, name="rescaling")


def said(capsys, model, *batches, **given):
    unset = dict.fromkeys(("size", "scale", "mean", "std", "preprocess"))
    warn_of_inputs(model, batches, argparse.Namespace(data="data", crop=False, **{**unset, **given}))
    return capsys.readouterr().err


@pytest.mark.parametrize("factor", [255**2, 255 * 127.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_are_divided_twice(capsys, factor, channels):
    x = BYTES[..., :channels] / factor
    assert "they seem to be scaled twice. Scale them once" in said(capsys, convolution(channels=channels), x)
    assert "Leave out --scale" in said(capsys, convolution(channels=channels), x, scale=1 / 255)


@pytest.mark.parametrize("layer", [rescaling(), rescaling(1 / 127.5, -1.0)])
def test_images_from_0_to_1_for_a_model_that_scales_them(capsys, layer):
    text = said(capsys, convolution(layer), BYTES / 255)
    assert "layer 'rescaling' of the model multiplies them by" in text and "pass images from 0 to 255" in text
    text = said(capsys, convolution(layer), BYTES / 255, scale=1 / 255)
    assert "Leave out --scale" in text and text.count("warning") == 1


def test_images_that_a_trained_normalization_finds_small(capsys):
    layer = layers.Normalization(mean=[127.0] * 3, variance=[5000.0] * 3, name="normalization")
    text = said(capsys, convolution(layer), BYTES / 255)
    assert "Layer 'normalization' got values around" in text and "pass images from 0 to 255" in text
    assert said(capsys, convolution(layer), BYTES) == ""


def test_a_mean_of_images_from_0_to_1_without_their_scale(capsys):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    x = (BYTES - np.float32(mean)) / np.float32(std)
    assert "Pass --scale 1/255, too" in said(capsys, convolution(), x, mean=mean, std=std)
    assert said(capsys, convolution(), (BYTES / 255 - 0.5) / 0.2, scale=1 / 255, mean=[0.5], std=[0.2]) == ""
    assert said(capsys, convolution(), (BYTES - 127.5) / 127.5, mean=[127.5], std=[127.5]) == ""


def test_samples_without_information(capsys):
    zeros = np.zeros((4, 8, 8, 3), "float32")
    assert "data: the samples hold the value 0 and no other." in said(capsys, convolution(), zeros, zeros)
    assert "hold the value 0, 1 and no other" not in said(capsys, convolution(), zeros, zeros + 1)
    assert "data: all samples are equal." in said(capsys, convolution(rescaling()), BYTES[:1], BYTES[:1])
    tokens = keras.Input((4,), dtype="int32")
    model = keras.Model(tokens, layers.Embedding(10, 3)(tokens))
    assert "hold the value 0" in said(capsys, model, np.zeros((3, 4), "int32"))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (convolution(rescaling()), BYTES),
        (convolution(rescaling()), BYTES[:1]),
        (convolution(), BYTES / 255),
        (convolution(), BYTES / 127.5 - 1),
        (convolution(), 0.1 * BYTES / 255),  # dark
        (convolution(rescaling(1 / 65535)), 200 * BYTES),  # 16 bits
    ],
    ids=["rescaling", "one", "unit", "symmetric", "dark", "16 bits"],
)
def test_images_in_their_scale_raise_no_alarm(capsys, model, x):
    assert said(capsys, model, x) == ""


def vectors(*shape, dtype="float32", embedded=False):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layers.Embedding(50, 4)(inputs) if embedded else layers.Dense(2)(inputs))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (vectors(5), 1e-3 * RNG.normal(size=(8, 5)).astype("float32")),
        (vectors(5), np.eye(5, dtype="float32")),
        (vectors(6, dtype="int32", embedded=True), RNG.integers(0, 50, (8, 6)).astype("int32")),
        (vectors(100, 1), 1e-3 * RNG.normal(size=(8, 100, 1)).astype("float32")),
        (convolution(channels=7), 1e-4 * RNG.random((4, 8, 8, 7)).astype("float32")),
    ],
    ids=["table", "one_hot", "tokens", "sound", "channels"],
)
def test_other_data_has_no_usual_scale(capsys, model, x):
    assert said(capsys, model, x) == ""


def test_one_of_several_inputs_may_be_constant(capsys):
    tokens, mask = keras.Input((6,), dtype="int32"), keras.Input((6,))
    model = keras.Model([tokens, mask], [layers.Embedding(50, 4)(tokens), layers.Dense(2)(mask)])
    assert said(capsys, model, [RNG.integers(0, 50, (8, 6)).astype("int32"), np.ones((8, 6), "float32")]) == ""
