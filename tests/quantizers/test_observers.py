import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from tensorflow_quantization.quantizers.observers import EMA_MOMENTUM, OBSERVERS, ema, last

finite = st.floats(-1e3, 1e3, width=32)


def follow(observer, batches, start=(-6.0, 6.0)):
    range_ = ops.convert_to_tensor(np.float32(start))
    for count, batch in enumerate(batches):
        range_ = observer(range_, ops.convert_to_tensor(np.float32(batch)), ops.convert_to_tensor(np.float32(count)))
    return ops.convert_to_numpy(range_)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_moving_average_starts_as_the_mean_of_the_batches(batches):
    np.testing.assert_allclose(follow(ema, batches), np.mean(batches, axis=0), rtol=1e-4, atol=1e-2)


def test_moving_average_forgets_with_its_momentum():
    expected = np.array([0.0, 0.0])
    batches = [(-np.cos(i), np.sin(i)) for i in range(300)]
    for count, batch in enumerate(batches):
        momentum = min(EMA_MOMENTUM, count / (count + 1))
        expected = momentum * expected + (1 - momentum) * np.array(batch)
    np.testing.assert_allclose(follow(ema, batches), expected, rtol=1e-3, atol=1e-5)


def test_moving_average_has_nothing_of_the_range_it_starts_from():
    np.testing.assert_array_equal(follow(ema, [(-1.0, 2.0)], start=(-6.0, 6.0)), [-1.0, 2.0])


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
def test_last_is_the_range_of_the_last_batch(batches):
    np.testing.assert_array_equal(follow(last, batches), np.float32(batches[-1]))


@pytest.mark.parametrize("name", OBSERVERS)
def test_steady_batches_give_their_own_range(name):
    np.testing.assert_allclose(follow(OBSERVERS[name], [(-1.5, 3.25)] * 200), [-1.5, 3.25], rtol=1e-6)
