import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorflow_quantization.calibration import Percentile
from tensorflow_quantization.calibration.histogram import BINS
from tensorflow_quantization.quantizers import QuantizationScheme

SYMMETRIC = QuantizationScheme()
AFFINE = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)


def estimate(values, percentile, scheme, pieces=4):
    estimator = Percentile(percentile)
    for piece in np.array_split(values, pieces):
        estimator.update(piece)
    return estimator, estimator.range(scheme)


def distribution(name, seed, size=4000):
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.normal(size=size),
        "relu": np.maximum(rng.normal(size=size), 0),
        "heavy": rng.standard_t(2, size=size),
        "negative": -np.abs(rng.normal(3, 1, size=size)),
    }[name]
    return values.astype("float32")


names = st.sampled_from(["normal", "relu", "heavy", "negative"])
percentiles = st.sampled_from([60.0, 90.0, 99.0, 99.9, 100.0])


@given(names, percentiles, st.integers(0, 1000))
def test_symmetric_range_holds_that_share_of_the_magnitudes(name, percentile, seed):
    values = distribution(name, seed)
    estimator, (low, high) = estimate(values, percentile, SYMMETRIC)
    limit = max(-low, high)
    exact = np.quantile(np.abs(values), percentile / 100, method="inverted_cdf")
    assert exact <= limit * (1 + 1e-5) + 1e-6 or limit == np.abs(values).max()
    assert limit <= exact + 1.01 * estimator.limit / BINS


@given(names, percentiles, st.integers(0, 1000))
def test_affine_range_holds_that_share_at_each_end(name, percentile, seed):
    values = distribution(name, seed)
    estimator, (low, high) = estimate(values, percentile, AFFINE)
    bin_width = estimator.limit / BINS
    exact_high = np.quantile(values, percentile / 100, method="inverted_cdf")
    exact_low = -np.quantile(-values, percentile / 100, method="inverted_cdf")
    assert abs(high - exact_high) <= 1.01 * bin_width
    assert abs(low - exact_low) <= 1.01 * bin_width


@pytest.mark.parametrize("scheme", [SYMMETRIC, AFFINE], ids=["symmetric", "affine"])
def test_rare_outliers_are_clipped(scheme):
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 100_000), [500.0]]).astype("float32")
    _, (low, high) = estimate(values, 99.99, scheme)
    assert -1 <= low < -0.8
    assert 0.8 < high < 1.2


@pytest.mark.parametrize("scheme", [SYMMETRIC, AFFINE], ids=["symmetric", "affine"])
def test_whole_percentage_is_the_whole_range(scheme):
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    _, range_ = estimate(values, 100, scheme)
    np.testing.assert_allclose(range_, (values.min(), values.max()), rtol=1e-3)


@pytest.mark.parametrize("scheme", [SYMMETRIC, AFFINE], ids=["symmetric", "affine"])
def test_range_never_exceeds_what_was_seen(scheme):
    values = np.float32([0.1, 0.2, 0.3])
    _, (low, high) = estimate(values, 99.99, scheme, pieces=1)
    assert low == np.float32(0.1) or scheme.symmetric
    assert high == np.float32(0.3)


def test_zeros_only_have_an_empty_range():
    _, range_ = estimate(np.zeros(10), 99.99, SYMMETRIC, pieces=1)
    assert range_ == (0, 0)


@pytest.mark.parametrize("percentile", [50, 0, -1, 100.1, 0.9999])
def test_percentile_out_of_range_is_refused(percentile):
    with pytest.raises(ValueError, match=f"must be above 50 and at most 100, got {percentile}"):
        Percentile(percentile)
