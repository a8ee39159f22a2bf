import keras
import numpy as np
import pytest
from accuracy_networks import depthwise
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tensorflow_quantization import quantize_model
from tensorflow_quantization.accuracy import clip_weights
from tensorflow_quantization.accuracy.kernels import kernels_of
from tensorflow_quantization.model.weights import float32_array

KINDS = {
    "normal": lambda rng: rng.standard_normal((40, 3)),
    "heavy": lambda rng: rng.standard_t(1.5, (40, 3)),
    "one-sided": lambda rng: rng.exponential(size=(40, 3)),
    "constant": lambda rng: np.full((40, 3), rng.standard_normal()),
    "zeros": lambda rng: np.zeros((40, 3)),
}


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), bits=st.sampled_from([2, 4, 8]), seed=st.integers(0, 2**16))
def test_each_channel_has_the_range_of_least_error(kind, bits, seed):
    weight = KINDS[kind](np.random.default_rng(seed)).astype("float32")
    inputs = keras.Input((40,))
    model = keras.Model(inputs, layers.Dense(3, name="fc")(inputs))
    model.get_layer("fc").kernel.assign(weight)
    (kernel,) = kernels_of(clip_weights(quantize_model(model, weight_bits=bits)))
    got = ((kernel.quantizer.dequantized(kernel.value) - weight) ** 2).sum(axis=0)
    top = 2 ** (bits - 1) - 1
    for channel in range(3):
        errors = []
        for fraction in np.linspace(0.2, 1.0, 81):
            step = max(np.abs(weight[:, channel]).max() * fraction / top, 1e-12)
            q = np.clip(np.round(weight[:, channel] / step), -top, top)
            errors.append(((q * step - weight[:, channel]) ** 2).sum())
        assert got[channel] <= min(errors) * (1 + 1e-3) + 1e-9


def test_each_block_is_clipped_for_itself():
    inputs = keras.Input((40,))
    made = quantize_model(keras.Model(inputs, keras.layers.Dense(6)(inputs)), target="onnxruntime", block_size=16)
    (kernel,) = kernels_of(made)
    value = np.random.default_rng(0).standard_t(2, (40, 6)).astype("float32")
    kernel.wrapper.layer.kernel.assign(value)
    before = np.square(kernel.quantizer.dequantized(value) - value)
    clip_weights(made)
    after = np.square(kernel.quantizer.dequantized(kernel.value) - value)
    for rows in (slice(16), slice(16, 32), slice(32, 40)):
        assert (after[rows].sum(axis=0) <= before[rows].sum(axis=0) * (1 + 1e-5)).all()
    assert after.sum() < 0.96 * before.sum()


def test_it_pays_at_four_bits():
    model = depthwise()
    plain, clipped = quantize_model(model, weight_bits=4), clip_weights(quantize_model(model, weight_bits=4))

    def error(quantized):
        found = 0.0
        for kernel in kernels_of(quantized):
            weight = float32_array(model.get_layer(kernel.wrapper.layer.name).kernel)
            found += ((kernel.quantizer.dequantized(kernel.value) - weight) ** 2).sum()
        return found

    assert error(clipped) < 0.95 * error(plain)


def test_a_float_model_is_an_error():
    with pytest.raises(ValueError, match="no quantized kernels"):
        clip_weights(depthwise())
