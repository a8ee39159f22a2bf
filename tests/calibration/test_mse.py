import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization.calibration import MSE, MinMax
from tensorflow_quantization.quantizers import QuantizationScheme, numerics

SCHEMES = {
    "int8": QuantizationScheme(),
    "int4": QuantizationScheme(bits=4),
    "uint4 affine": QuantizationScheme(bits=4, signed=False, symmetric=False, narrow_range=False),
}


def error(values, range_, scheme):
    scale, zero_point = numerics.scale_from_range(*np.array(range_, np.float64), scheme, np)
    quantized = numerics.dequantize(numerics.quantize(values, scale, zero_point, scheme, np), scale, zero_point)
    return np.mean((quantized - values) ** 2)


def estimate(estimator, values, scheme):
    for piece in np.array_split(values, 3):
        estimator.update(piece)
    return estimator.range(scheme)


def distribution(name, seed=0, size=3000):
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.normal(size=size),
        "relu": np.maximum(rng.normal(size=size), 0),
        "heavy": rng.standard_t(2, size=size),
        "shifted": rng.normal(2, 1, size=size),
    }[name]
    return values.astype("float32")


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@settings(max_examples=10)
@given(name=st.sampled_from(["normal", "relu", "heavy", "shifted"]), seed=st.integers(0, 1000))
def test_error_is_as_small_as_a_search_on_the_values_themselves_finds(scheme, name, seed):
    values = distribution(name, seed)
    found = error(values, estimate(MSE(), values, scheme), scheme)
    low, high = values.min(), values.max()
    brute = min(error(values, (f * low, f * high), scheme) for f in np.linspace(0.1, 1, 200))
    assert found <= brute * 1.05


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("name", ["normal", "relu", "heavy", "shifted"])
def test_error_is_at_most_that_of_the_whole_range(scheme, name):
    values = distribution(name)
    found = error(values, estimate(MSE(), values, scheme), scheme)
    assert found <= error(values, estimate(MinMax(), values, scheme), scheme) * 1.001


def test_few_bits_clip_more_than_many():
    values = distribution("normal")
    limits = [estimate(MSE(), values, QuantizationScheme(bits=bits))[1] for bits in (2, 4, 8)]
    assert limits[0] < limits[1] < limits[2]


def test_affine_ends_are_chosen_apart():
    """A long tail on one side is clipped, the short side is not."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(-1, 0, 5000), rng.uniform(0, 1, 5000), [40.0]]).astype("float32")
    low, high = estimate(MSE(), values, SCHEMES["uint4 affine"])
    assert high < 20
    assert low < -0.5


def test_zeros_only_have_an_empty_range():
    assert estimate(MSE(), np.zeros(9), SCHEMES["int8"]) == (0, 0)
