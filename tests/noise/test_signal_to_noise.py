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


def test_each_output_counts_in_its_own_units():
    ratio = SignalToNoise()
    ratio.update(np.full(4, 1e3), np.full(4, 1.001e3), 0)  # 60 dB
    ratio.update(np.ones(2), np.full(2, 1.1), 1)  # 20 dB
    assert ratio.noise == pytest.approx((1e-6 + 1e-2) / 2)
    assert SignalToNoise().noise == 0


def test_noise_on_an_output_of_zeros():
    ratio = SignalToNoise()
    ratio.update(np.zeros(4), np.full(4, 1e-9))
    assert ratio.noise == 1


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
