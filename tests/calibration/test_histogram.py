import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorflow_quantization.calibration.histogram import BINS, Histogram

arrays = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))
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
    assert found.limit >= np.abs(values).max() * (1 - 1e-6)


@given(batches)
def test_values_lie_in_the_bin_that_counts_them(batches):
    """After growing and merging, each bin holds as many values as lie between its edges, up to float rounding."""
    found = histogram(batches)
    if found.limit == 0:
        return
    values = np.sort(np.concatenate(batches).astype(np.float64))
    width = found.limit / BINS
    below = np.cumsum(found.counts)
    for edge, count in zip(found.edges[1:][found.counts > 0], below[found.counts > 0], strict=True):
        slack = width * 1e-2 + abs(edge) * 1e-6
        assert np.searchsorted(values, edge - slack) <= count <= np.searchsorted(values, edge + slack, side="right")


@given(batches, st.randoms())
def test_counts_on_each_side_of_zero_do_not_depend_on_the_order(batches, random):
    first = histogram(batches)
    shuffled = list(batches)
    random.shuffle(shuffled)
    second = histogram(shuffled)
    for part in (slice(0, BINS), slice(BINS, None)):
        assert first.counts[part].sum() == second.counts[part].sum()


def test_a_negative_number_next_to_nothing_is_counted_below_zero():
    found = histogram([np.float32([2048.0]), np.float32([-6e-5, -1e-45])])
    assert found.counts[BINS - 1] == 2


def test_limit_doubles_and_pairs_of_bins_merge():
    found = Counts()
    found.update(np.float32([1.0, 0.5, -0.25]))
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


def test_zeros_wait_for_the_first_other_value():
    found = Counts()
    found.update(np.zeros(5))
    assert found.limit == 0
    assert found.counts[BINS] == 5
    found.update(np.float32([2.0]))
    assert found.limit == 2
    assert found.counts[BINS] == 5
    assert found.counts[2 * BINS - 1] == 1


def test_center_of_the_bin_of_zeros_is_zero():
    found = Counts()
    found.update(np.float32([0, 0, 1]))
    assert found.centers[BINS] == 0
    np.testing.assert_allclose(found.centers[BINS + 1], 1.5 / BINS)
    assert found.edges[BINS] == 0
    assert len(found.edges) == 2 * BINS + 1


@given(arrays)
def test_half_of_the_bins_at_least_are_in_use(batch):
    found = histogram([batch[:1], batch])
    greatest = np.abs(batch).max()
    assert found.limit <= 2 * greatest or greatest == 0
