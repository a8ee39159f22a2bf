"""A mask of huge numbers that reaches a quantizer is named; other data is not."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import calibrate, quantize_model

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(8, 6)).astype("float32")
MASK = np.where(np.tri(8, 6) > 0, 0.0, -1.0).astype("float32")


def masked_by_the_user():
    scores, mask = keras.Input((6,), name="scores"), keras.Input((6,), name="mask")
    return quantize_model(
        keras.Model([scores, mask], layers.Softmax()(layers.Add(name="masked")([scores, mask]))), target="litert"
    )


@pytest.mark.parametrize("method, factor", [("mse", 1e9), ("mse", 1e4), ("percentile", 1e9), ("minmax", 1e9)])
def test_mask_of_huge_numbers_as_an_input_warns_and_names_the_sum(method, factor):
    with pytest.warns(UserWarning, match=r"'quant_masked.*-1e\+0[49].*within the model") as caught:
        calibrate(masked_by_the_user(), [SCORES, factor * MASK], method=method, verbose=0)
    assert len([w for w in caught if w.category is UserWarning]) == 1


@pytest.mark.parametrize("method", ["mse", "minmax"])
@pytest.mark.parametrize(
    "data",
    [
        [SCORES, 30 * MASK],
        [np.abs(SCORES), 0 * MASK],
        [20000 * SCORES, 20000 * MASK],
        [0 * SCORES, 1e9 * MASK],
        [keras.ops.convert_to_numpy(keras.ops.gelu(30000 * SCORES)), MASK],
    ],
    ids=["-30", "no mask", "all huge", "mask alone", "gelu"],
)
def test_other_ranges_do_not_warn(data, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        calibrate(masked_by_the_user(), data, method=method, verbose=0)


def test_mask_that_the_model_computes_does_not_warn():
    scores, mask = keras.Input((6,)), keras.Input((6,))
    masked = layers.Softmax()(scores + (1 - mask) * -1e9)
    quantized = quantize_model(keras.Model([scores, mask], layers.Dense(2)(masked)), target="litert")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        calibrate(quantized, [SCORES, MASK + 1], verbose=0)
