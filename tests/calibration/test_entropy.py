import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.calibration import Entropy, MinMax
from tensorflow_quantization.calibration.entropy import _divergences
from tensorflow_quantization.quantizers import QuantizationScheme

AFFINE = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)


def published(counts, size, levels):
    """The divergence, bin by bin, as the slides of TensorRT say it."""
    p = np.array(counts[:size], np.float64)
    p[-1] += np.sum(counts[size:])
    q = np.zeros(size)
    edges = [level * size // levels for level in range(levels + 1)]
    for start, stop in itertools.pairwise(edges):
        occupied = [b for b in range(start, stop) if p[b] > 0]
        for b in occupied:
            q[b] = sum(counts[start:stop]) / len(occupied)
    if p.sum() == 0:
        return 0.0
    if q.sum() == 0:
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    if ((p > 0) & (q == 0)).any():
        return np.inf
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


counts = st.lists(st.one_of(st.just(0), st.integers(0, 1000), st.just(10**9)), min_size=8, max_size=40)


@given(counts, st.sampled_from([2, 4, 8]), st.data())
def test_divergence_is_the_published_one(counts, levels, data):
    size = data.draw(st.integers(levels, len(counts)))
    expected = published(counts, size, levels)
    (found,) = _divergences(np.float64(counts), np.array([size]), levels)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def distribution(name, seed, size=5000):
    rng = np.random.default_rng(seed)
    values = {
        "zeros": np.zeros(size),
        "constant": np.full(size, 0.3),
        "negative constant": np.full(size, -7.0),
        "relu": np.maximum(rng.normal(size=size), 0),
        "negative": -np.abs(rng.normal(3, 1, size=size)),
        "heavy": rng.standard_t(2, size=size),
        "normal": rng.normal(size=size),
    }[name]
    return values.astype("float32")


NAMES = ("zeros", "constant", "negative constant", "relu", "negative", "heavy", "normal")


def brute(values, bits):
    """The limit that the published search finds on the values themselves, NumPy's histogram of abs(x)."""
    greatest = np.abs(values).max()
    limit = 2.0 ** (np.floor(np.log2(greatest)) + 1)
    counts, edges = np.histogram(np.abs(values), 2048, (0, limit))
    counts[0] = counts[1]
    levels = 2 ** (bits - 1)
    last = max(levels, int(np.max(np.flatnonzero(counts), initial=0)) + 1)
    sizes = [size for size in range(levels, last + 1) if size == last or np.count_nonzero(counts[:size]) > 1]
    return min((_divergences(np.float64(counts), np.array([size]), levels)[0], edges[size]) for size in sizes)[1]


@pytest.mark.slow
@given(st.sampled_from(NAMES[1:]), st.integers(0, 100), st.sampled_from([3, 8]))
@settings(max_examples=15)
def test_range_is_that_of_the_search_on_the_values(name, seed, bits):
    values = distribution(name, seed)
    estimator = Entropy()
    for piece in np.array_split(values, 3):
        estimator.update(piece)
    low, high = estimator.range(QuantizationScheme(bits=bits))
    limit = brute(values, bits)
    assert low == max(values.min(), -limit)
    assert high == min(values.max(), limit)


@given(st.sampled_from(NAMES), st.integers(0, 100), st.sampled_from([2, 4, 8]))
@settings(max_examples=15)
def test_range_lies_in_what_was_seen(name, seed, bits):
    values = distribution(name, seed)
    entropy, whole = Entropy(), MinMax()
    for estimator in (entropy, whole):
        estimator.update(values)
    for scheme in (QuantizationScheme(bits=bits), AFFINE):
        (low, high), (least, greatest) = entropy.range(scheme), whole.range(scheme)
        assert least <= low <= high <= greatest


@pytest.mark.parametrize("name", ["zeros", "constant", "negative constant"])
def test_one_value_is_not_clipped(name):
    values = distribution(name, 0)
    estimator = Entropy()
    estimator.update(values)
    assert estimator.range(QuantizationScheme()) == (values.min(), values.max())


@pytest.mark.parametrize("mean", [100, 288, -50])
def test_values_far_from_zero_are_not_all_clipped(mean):
    values = np.random.default_rng(0).normal(mean, 1, size=50_000).astype("float32")
    estimator = Entropy()
    estimator.update(values)
    low, high = estimator.range(QuantizationScheme())
    assert np.mean((values < low) | (values > high)) < 0.1


def test_method_by_name(cnn, images):
    calibrate(quantize_model(cnn), images[0], method="entropy", verbose=0)
