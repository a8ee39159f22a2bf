import keras
import numpy as np
from accuracy_networks import branches, depthwise
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tensorflow_quantization import quantize_model
from tensorflow_quantization.accuracy import round_weights
from tensorflow_quantization.accuracy.kernels import kernels_of
from tensorflow_quantization.accuracy.soft_rounding import SoftRounding, indecision, rectified_sigmoid


def test_the_start_is_the_rounding_that_there_is():
    for build in (depthwise, branches):
        model = quantize_model(build(), weight_bits=3)
        exact = [kernel.value for kernel in kernels_of(model)]
        round_weights(model)
        for kernel, value in zip(kernels_of(model), exact, strict=True):
            before = kernel.quantizer.dequantized(kernel.value)
            rounding = SoftRounding(kernel, value)
            rounding.assign(rounding.start)
            np.testing.assert_array_equal(kernel.quantizer.dequantized(kernel.value), before)


def kernel_of(weight, bits=4):
    inputs = keras.Input((len(weight),))
    dense = layers.Dense(weight.shape[1], use_bias=False)
    model = keras.Model(inputs, dense(inputs))
    dense.set_weights([weight])
    (kernel,) = kernels_of(quantize_model(model, weight_bits=bits))
    return kernel


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([2, 3, 4, 8]), st.sampled_from(["normal", "zeros", "constant", "heavy"]))
def test_up_and_down_are_neighbours_of_the_weight(seed, bits, kind):
    rng = np.random.default_rng(seed)
    weight = {
        "normal": rng.normal(size=(9, 3)),
        "zeros": np.zeros((9, 3)),
        "constant": np.full((9, 3), rng.normal()),
        "heavy": rng.standard_cauchy(size=(9, 3)),
    }[kind].astype("float32")
    kernel = kernel_of(weight, bits)
    scale, _ = kernel.quantizer.parameters(weight)
    rounding = SoftRounding(kernel, weight)
    for extreme in (-9.0, 9.0):
        value = np.full(weight.shape, extreme, "float32")
        soft = keras.ops.convert_to_numpy(rounding.weight(value))
        rounding.assign(value)
        rounded = kernel.value
        np.testing.assert_allclose(soft, rounded, rtol=1e-6)  # a value far out is decided
        assert np.all(np.abs(rounded - weight) <= scale * 1.001)
        integers = kernel.quantizer.integers(rounded)
        np.testing.assert_allclose(kernel.quantizer.dequantized(rounded), rounded, rtol=1e-5)  # it is rounded already
        assert integers.min() >= kernel.quantizer.scheme.qmin
        assert integers.max() <= kernel.quantizer.scheme.qmax


def test_formulas():
    value = np.linspace(-6, 6, 25).astype("float32")
    expected = np.clip(1.2 / (1 + np.exp(-value)) - 0.1, 0, 1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(rectified_sigmoid(value)), expected, atol=1e-6)
    for sharpness in (2.0, 20.0):
        by_hand = np.mean(1 - np.abs(2 * expected - 1) ** sharpness)
        assert abs(float(indecision(value, sharpness)) - by_hand) < 1e-5
    assert float(indecision(np.array([-9.0, 9.0], "float32"), 2.0)) == 0.0
