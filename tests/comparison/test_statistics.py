import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorflow_quantization.comparison.statistics import Difference, Usage, by_channel
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme


@given(st.integers(0, 1000), st.sampled_from([-1, 1]), st.integers(1, 4))
def test_batches_add_up_to_the_definitions(seed, axis, batches):
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=(8, 3, 5)).astype("float32")
    other = exact + rng.normal(0.1, 0.3, exact.shape).astype("float32")
    difference = Difference(axis)
    for part in np.array_split(np.arange(8), batches):
        difference.update(exact[part], other[part])
    e, o = by_channel(exact, axis).astype("float64"), by_channel(other, axis).astype("float64")
    error = o - e
    assert difference.snr == pytest.approx(10 * np.log10((e**2).sum() / (error**2).sum()), rel=1e-5)
    np.testing.assert_allclose(difference.channel_snr, 10 * np.log10((e**2).sum(0) / (error**2).sum(0)), rtol=1e-5)
    assert difference.cosine == pytest.approx((e * o).sum() / np.sqrt((e**2).sum() * (o**2).sum()), rel=1e-5)
    assert difference.bias == pytest.approx((error.mean(0) ** 2).sum() / (error**2).mean(0).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("exact", "other", "snr", "cosine", "bias"),
    [
        (np.zeros((4, 2)), np.zeros((4, 2)), np.inf, 1.0, 0.0),
        (np.ones((4, 2)), np.zeros((4, 2)), 0.0, 0.0, 1.0),
        (np.zeros((4, 2)), np.ones((4, 2)), -np.inf, 0.0, 1.0),
        (np.ones((4, 2)), np.ones((4, 2)), np.inf, 1.0, 0.0),
    ],
)
def test_constant_tensors(exact, other, snr, cosine, bias):
    difference = Difference(-1)
    difference.update(exact, other)
    assert (difference.snr, difference.cosine, difference.bias) == (snr, cosine, bias)
    assert difference.exact.constant.all()


def test_usage_counts_clipped_values_and_unused_integers():
    quantizer = ActivationQuantizer(QuantizationScheme())
    quantizer.set_range(-1.27, 1.27)  # steps of 0.01, integers from -127 to 127
    usage = Usage(quantizer, -1)
    usage.update(np.array([[0.0, 0.5], [2.0, 0.255]], "float32"))
    usage.update(np.array([[0.1, 1.0]], "float32"))
    assert usage.saturation == 1 / 6
    assert usage.dead_range == pytest.approx(1 - 128 / 255)
    assert usage.clips
    np.testing.assert_allclose(usage.values.magnitude, [2.0, 1.0])


def test_an_empty_usage_is_zero():
    usage = Usage(ActivationQuantizer(QuantizationScheme()), -1)
    assert (usage.saturation, usage.dead_range, usage.clips) == (0.0, 0.0, False)
