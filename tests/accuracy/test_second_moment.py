import doctest

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization.accuracy import second_moment
from tensorflow_quantization.accuracy.second_moment import Regression, SecondMoment


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), split=st.integers(1, 29), kind=st.sampled_from(["normal", "zeros", "constant"]))
def test_it_is_the_moment_with_correlations_shrunk(seed, split, kind):
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((2, 30, 4)) + 3
    rows = {"normal": normal, "zeros": 0 * normal, "constant": 0 * normal + 2}[kind]
    moment = SecondMoment()
    moment.update(rows[:, :split], 4)
    moment.update(rows[:, split:], 2)
    for got, x in zip(moment.estimate(), rows, strict=True):
        mean = x.mean(axis=0)
        covariance = (x - mean).T @ (x - mean) / 30
        shrunk = covariance * np.where(np.eye(4), 1.0, 6 / 10)
        np.testing.assert_allclose(got, shrunk + np.outer(mean, mean), rtol=1e-5, atol=1e-8)
        assert np.linalg.eigvalsh(got).min() >= -1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), split=st.integers(1, 29), samples=st.integers(1, 30), dead=st.booleans())
def test_the_regression_has_the_least_error_with_its_ridge(seed, split, samples, dead):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((2, 30, 4)) + 3
    if dead:
        rows[..., 1] = 0
    float_rows = rows + 0.3 * rng.standard_normal(rows.shape) + 0.2 * rows[..., :1]
    weight = rng.standard_normal((2, 4, 3))
    moment, regression = SecondMoment(), Regression()
    for part in (slice(split), slice(split, None)):
        moment.update(rows[:, part], samples)
        regression.update(rows[:, part], float_rows[:, part])
    for x, y, w, got in zip(rows, float_rows, weight, regression.kernel(weight, moment), strict=True):
        x, expected = x - x.mean(axis=0), (y - y.mean(axis=0)) @ w
        ridge = 4 / (2 * samples) * x.var(axis=0).mean()

        def cost(kernel, x=x, expected=expected, ridge=ridge, w=w):
            return np.square(expected - x @ kernel).mean(axis=0).sum() + ridge * np.square(kernel - w).sum()

        for moved in 1e-3 * rng.standard_normal((8, *w.shape)):
            assert cost(got) <= cost(got + moved)


def test_the_regression_leaves_a_kernel_of_constant_inputs():
    moment, regression, weight = SecondMoment(), Regression(), np.ones((1, 4, 3))
    moment.update(np.full((1, 8, 4), 2.0), 8)
    regression.update(np.full((1, 8, 4), 2.0), np.full((1, 8, 4), 3.0))
    assert np.array_equal(regression.kernel(weight, moment), weight)


def test_examples():
    assert doctest.testmod(second_moment, extraglobs={"np": np}).failed == 0
