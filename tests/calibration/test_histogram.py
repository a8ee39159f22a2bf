import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tensorflow_quantization.calibration.histogram import BINS, Histogram

elements = st.one_of(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), st.floats(-1, 1, width=16), st.just(0.0))
arrays = hnp.arrays(np.float32, st.integers(1, 30), elements=elements)
batches = st.lists(arrays, min_size=1, max_size=6)


class Counts(Histogram):
    """The histogram alone."""

    def range(self, scheme):
        raise NotImplementedError


def histogram(batches):
    estimator = Counts()
    for batch in batches:
        estimator.update(batch)
    return estimator


@given(batches)
def test_every_value_is_counted_once(batches):
    assert histogram(batches).counts.sum() == sum(batch.size for batch in batches)


@given(batches)
def test_least_and_greatest_are_exact(batches):
    values = np.concatenate(batches)
    found = histogram(batches)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.limit > np.abs(values).max()
    assert found.limit == 2.0**found.exponent


@given(batches)
def test_values_lie_in_the_bin_that_counts_them(batches):
    found = histogram(batches)
    values = np.concatenate(batches).astype(np.float64)
    sides = [np.histogram(side, found.edges[BINS:])[0] for side in (-values[values < 0], values[values >= 0])]
    np.testing.assert_array_equal(found.counts, np.concatenate([sides[0][::-1], sides[1]]))


@given(batches, st.randoms())
def test_neither_order_nor_batches_matter(batches, random):
    first = histogram(batches)
    shuffled = list(batches)
    random.shuffle(shuffled)
    for other in (histogram(shuffled), histogram([np.concatenate(batches)])):
        assert (other.low, other.high, other.exponent) == (first.low, first.high, first.exponent)
        np.testing.assert_array_equal(other.counts, first.counts)


@given(arrays)
def test_backend_counts_as_numpy_does(batch):
    expected = Counts.statistics(batch, np)
    found = Counts.statistics(ops.convert_to_tensor(batch))
    for name, value in expected.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(found[name]), value)


def test_a_negative_number_next_to_nothing_is_counted_below_zero():
    found = histogram([np.float32([2048.0]), np.float32([-6e-5, -1e-45])])
    assert found.counts[BINS - 1] == 2


def test_limit_doubles_and_pairs_of_bins_merge():
    found = Counts()
    found.update(np.float32([0.99, 0.5, -0.25]))
    assert found.limit == 1.0
    counts = found.counts.copy()
    found.update(np.float32([1.5]))
    assert found.limit == 2.0
    found.counts[BINS + int(0.75 * BINS)] -= 1  # 1.5 itself
    merged = counts.reshape(-1, 2).sum(axis=1)
    np.testing.assert_array_equal(found.counts[BINS // 2 : BINS // 2 + BINS], merged)
    assert found.counts.sum() == 3


def test_memory_does_not_grow_with_the_batches():
    found = Counts()
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e3, 1.0):
        found.update(rng.normal(0, scale, 10_000))
        assert found.counts.shape == (2 * BINS,)


def test_zeros_leave_the_limit_to_the_first_other_value():
    found = Counts()
    found.update(np.zeros(5))
    assert found.limit == 2.0**-100
    assert found.counts[BINS] == 5
    found.update(np.float32([1.9999]))
    assert found.limit == 2
    assert found.counts[BINS] == 5
    assert found.counts[2 * BINS - 1] == 1


@pytest.mark.parametrize("value", [np.finfo(np.float32).max, 2.0**127, 2.0**-99, 1e-45, 1.0])
def test_magnitudes_of_all_of_float32(value):
    found = histogram([np.float32([value, -value, value])])
    assert found.counts[BINS:].sum() == 2
    assert found.counts[:BINS].sum() == 1
    assert found.limit > float(value)


def test_center_of_the_bin_of_zeros_is_zero():
    found = Counts()
    found.update(np.float32([0, 0, 1]))
    assert found.centers[BINS] == 0
    np.testing.assert_allclose(found.centers[BINS + 1], 1.5 * found.limit / BINS)
    assert found.edges[BINS] == 0
    assert len(found.edges) == 2 * BINS + 1


@given(arrays)
def test_half_of_the_bins_at_least_are_in_use(batch):
    found = histogram([batch[:1], batch])
    greatest = np.abs(batch).max()
    assert found.limit <= max(2 * greatest, 2.0**-100)  # the least limit
