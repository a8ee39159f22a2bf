import re

import keras
import numpy as np
import pytest

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization_cli.training import train


@pytest.fixture
def models():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)])
    quantized = quantize_model(model, weight_bits=4, target="onnxruntime")
    data = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    return model, calibrate(quantized, data, verbose=0), data


class Batches(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return (self.data[32 * index : 32 * index + 32],)


def test_training_that_helps_stays(models, capsys):
    model, quantized, data = models
    before = quantized.get_weights()
    train(quantized, model, Batches(data), 8, [data])
    start, after = map(float, re.findall(r"([\d.]+) dB  ", capsys.readouterr().out))
    assert after > start
    assert any((a != b).any() for a, b in zip(before, quantized.get_weights(), strict=True))


def test_training_that_does_not_is_undone(models, capsys, recwarn):
    model, quantized, data = models
    before = quantized.get_weights()
    train(quantized, model, Batches(100 * np.abs(data)), 8, [data])  # unlike what it is judged by
    assert "undone, it is no gain" in capsys.readouterr().out
    assert all(np.array_equal(a, b) for a, b in zip(before, quantized.get_weights(), strict=True))
    assert not [w for w in recwarn if "moved the outputs" in str(w.message)]
