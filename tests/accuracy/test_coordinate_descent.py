import itertools

import numpy as np
from accuracy_networks import rounding_problem, squared_errors
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization.accuracy.coordinate_descent import rounded_to_moment, squared_error
from tensorflow_quantization.quantizers import QuantizationScheme

INT4 = QuantizationScheme(bits=4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), heavy=st.booleans(), blocks=st.booleans())
def test_no_other_integer_of_one_weight_is_better(seed, heavy, blocks):
    weight, scale, pinned, moment = rounding_problem(seed, size=70 if blocks else 5, heavy=heavy)
    chosen = rounded_to_moment(weight, scale, pinned, moment, INT4)
    nearest = np.clip(np.round(weight / scale), -7, 7)
    least = np.einsum("gkm,gkl,glm->gm", chosen * scale - weight, moment, chosen * scale - weight)
    assert (
        least <= np.einsum("gkm,gkl,glm->gm", nearest * scale - weight, moment, nearest * scale - weight) + 1e-9
    ).all()
    assert np.abs(chosen).max() <= 7
    if blocks:
        return
    for k, step in itertools.product(range(weight.shape[1]), (-1, 1)):
        other = chosen.copy()
        other[:, k] = np.clip(other[:, k] + step, -7, 7)
        assert (
            squared_errors(other, weight, scale, moment) >= squared_errors(chosen, weight, scale, moment) - 1e-9
        ).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), heavy=st.booleans())
def test_no_other_fp8_number_of_one_weight_is_better(seed, heavy):
    weight, scale, pinned, moment = rounding_problem(seed, size=5, heavy=heavy)
    fp8 = QuantizationScheme(floating=True)
    scale = scale * 7 / fp8.qmax
    chosen = rounded_to_moment(weight, scale, pinned, moment, fp8)
    index = np.searchsorted(fp8.levels, chosen)
    assert np.array_equal(fp8.levels[index], chosen)
    for k, step in itertools.product(range(weight.shape[1]), (-1, 1)):
        other = chosen.copy()
        other[:, k] = fp8.levels[np.clip(index[:, k] + step, 0, len(fp8.levels) - 1)]
        assert (
            squared_errors(other, weight, scale, moment) >= squared_errors(chosen, weight, scale, moment) - 1e-9
        ).all()


def test_pinned_weights_keep_the_nearest_integer():
    weight, scale, _, moment = rounding_problem(0)
    pinned = np.random.default_rng(1).random(weight.shape) < 0.5
    chosen = rounded_to_moment(weight, scale, pinned, moment, INT4)
    assert np.array_equal(chosen[pinned], np.round(weight / scale)[pinned])


def test_without_correlations_the_nearest_integers_are_best():
    weight, scale, pinned, _ = rounding_problem(0)
    moment = np.broadcast_to(np.eye(6), (2, 6, 6))
    assert np.array_equal(rounded_to_moment(weight, scale, pinned, moment, INT4), np.round(weight / scale))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), heavy=st.booleans())
def test_squared_errors_of_all_channels_at_once(seed, heavy):
    weight, scale, _, moment = rounding_problem(seed, heavy=heavy)
    integers = np.round(weight / scale)
    got = squared_error(integers * scale - weight, moment)
    np.testing.assert_allclose(got[:, 0], squared_errors(integers, weight, scale, moment), rtol=1e-9, atol=1e-12)
