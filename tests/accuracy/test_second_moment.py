import doctest

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization.accuracy import second_moment
from tensorflow_quantization.accuracy.second_moment import SecondMoment


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), split=st.integers(1, 29), kind=st.sampled_from(["normal", "zeros", "constant"]))
def test_it_is_the_moment_with_correlations_shrunk(seed, split, kind):
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((2, 30, 4)) + 3
    rows = {"normal": normal, "zeros": 0 * normal, "constant": 0 * normal + 2}[kind]
    moment = SecondMoment()
    moment.update(rows[:, :split])
    moment.update(rows[:, split:])
    for got, x in zip(moment.estimate(), rows, strict=True):
        mean = x.mean(axis=0)
        covariance = (x - mean).T @ (x - mean) / 30
        shrunk = covariance * np.where(np.eye(4), 1.0, 30 / 34)
        np.testing.assert_allclose(got, shrunk + np.outer(mean, mean), rtol=1e-5, atol=1e-8)
        assert np.linalg.eigvalsh(got).min() >= -1e-9


def test_examples():
    assert doctest.testmod(second_moment, extraglobs={"np": np}).failed == 0
