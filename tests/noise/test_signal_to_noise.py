import doctest
import math

import numpy as np
import pytest

from tensorflow_quantization.noise import signal_to_noise
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise, decibels


def test_batches_are_one():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 10, 3))
    whole, parts = SignalToNoise(), SignalToNoise()
    whole.update(x, y)
    parts.update(x[:4], y[:4])
    parts.update(x[4:], y[4:])
    assert math.isclose(whole.decibels, parts.decibels)
    assert math.isclose(whole.decibels, 10 * math.log10((x**2).sum() / ((x - y) ** 2).sum()))


def test_without_noise_it_is_infinite():
    ratio = SignalToNoise()
    ratio.update(np.ones(3), np.ones(3))
    assert ratio.decibels == math.inf


def test_examples():
    assert doctest.testmod(signal_to_noise, extraglobs={"np": np}).failed == 0


def test_decibels_at_the_limits():
    assert decibels(1.0, 0.001) == pytest.approx(30)
    assert decibels(0.0, 0.0) == np.inf
    assert decibels(0.0, 1.0) == -np.inf
