"""Who speaks: an LSTM on JapaneseVowels, from PyPI's package aeon, trained here in seconds."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from keras import layers

from .network import TrainedNetwork, load_or_train
from .packages import pypi

#: Steps of the longest sequence, and numbers in a step.
STEPS, FEATURES = 29, 12
SPEAKERS = 9
EPOCHS = 60


def vowels_network(seed: int) -> TrainedNetwork:
    """Trained with this seed, or with the weights of an earlier such training; evaluated on the test set.

    Its inputs are float32 (n, 29, 12): sequences of 7 to 29 steps, and zeros, which the network masks.
    """
    folder = pypi("aeon", "1.6.0") / "aeon" / "datasets" / "data" / "JapaneseVowels"
    x_train, y_train = read(folder / "JapaneseVowels_TRAIN.ts")
    x_test, y_test = read(folder / "JapaneseVowels_TEST.ts")
    keras.utils.set_random_seed(seed)
    model = vowels_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    load_or_train(model, f"vowels-{seed}", lambda: model.fit(x_train, y_train, 32, EPOCHS, verbose=0))
    return TrainedNetwork("vowels", model, x_train[:256], x_test, y_test)


def vowels_model() -> keras.Model:
    inputs = keras.Input((STEPS, FEATURES), name="frames")
    x = layers.Masking()(inputs)
    x = layers.Bidirectional(layers.LSTM(32, return_sequences=True), name="both_ways")(x)
    x = layers.LSTM(32, name="last")(x)
    return keras.Model(inputs, layers.Dense(SPEAKERS, name="logits")(x), name="vowels")


def read(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Sequences with zeros after their ends, float32 (n, 29, 12), and the speakers, int64 (n,).

    A line has the values of each number in a step, then the speaker from 1 on, with colons between.
    """
    lines = path.read_text().partition("@data\n")[2].split()
    sequences, speakers = np.zeros((len(lines), STEPS, FEATURES), "float32"), np.zeros(len(lines), "int64")
    for index, line in enumerate(lines):
        *features, speaker = line.split(":")
        for feature, values in enumerate(features):
            numbers = np.array(values.split(","), "float32")
            sequences[index, : len(numbers), feature] = numbers
        speakers[index] = int(speaker) - 1
    order = np.random.default_rng(0).permutation(len(lines))
    return sequences[order], speakers[order]
