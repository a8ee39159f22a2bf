import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorflow_quantization.export.onnx.values import (
    Value,
    channels_first,
    flattened_permutation,
    keras_order,
    moves_no_data,
    stored_array,
)


@pytest.mark.parametrize(
    ("rank", "axis", "order"),
    [(4, -1, (0, 3, 1, 2)), (4, 1, (0, 1, 2, 3)), (3, -1, (0, 2, 1)), (5, -1, (0, 4, 1, 2, 3)), (2, -1, (0, 1))],
)
def test_channels_first(rank, axis, order):
    assert channels_first(rank, axis) == order


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_reordering_moves_no_data_exactly_if_the_elements_stay(shape, random):
    order = list(range(len(shape)))
    random.shuffle(order)
    array = np.arange(np.prod(shape)).reshape(shape)
    stays = (array.transpose(order).ravel() == array.ravel()).all()
    assert moves_no_data(tuple(shape), keras_order(len(shape)), tuple(order)) == stays


@given(
    st.sampled_from(list(itertools.permutations(range(1, 4)))),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.integers(0, 4),
)
def test_a_constant_is_stored_as_what_it_meets(permutation, broadcast, rank):
    shape = (2, 3, 4, 5)
    order = (0, *permutation)
    x = np.random.default_rng(0).normal(size=shape)
    constant_shape = tuple(1 if b else d for b, d in zip(broadcast, shape, strict=True))[4 - rank :]
    constant = np.random.default_rng(1).normal(size=constant_shape)
    stored = stored_array(constant, Value(None, shape, order=order))
    np.testing.assert_array_equal(x.transpose(order) * stored, (x * constant).transpose(order))


def test_a_constant_meets_a_flattened_image():
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    order = (0, 3, 1, 2)
    constant = np.random.default_rng(1).normal(size=60)
    like = Value(None, (2, 60), flattened=((2, 3, 4, 5), order))
    stored = image.transpose(order).reshape(2, 60) * stored_array(constant, like)
    expected = image.reshape(2, 60) * constant
    np.testing.assert_array_equal(stored, expected[:, flattened_permutation(like.flattened)])


def test_permuting_what_is_not_known_is_an_error():
    with pytest.raises(ValueError, match="unknown axes"):
        flattened_permutation(((None, None, 3), (0, 2, 1)))
