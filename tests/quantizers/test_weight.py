import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from small_models import gradients

from tensorflow_quantization.quantizers import QuantizationScheme, WeightQuantizer

weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=4), elements=st.floats(-100, 100, width=32)
)
bits = st.integers(2, 8)


def apply(quantizer, weight):
    return ops.convert_to_numpy(quantizer(ops.convert_to_tensor(weight)))


@given(weights, bits, st.booleans(), st.booleans())
def test_training_and_file_have_the_same_integers(weight, bits, symmetric, narrow_range):
    quantizer = WeightQuantizer(QuantizationScheme(bits, symmetric=symmetric, narrow_range=narrow_range, axis=-1))
    scale, zero_point = quantizer.parameters(weight)
    assert scale.shape == zero_point.shape == (1,) * (weight.ndim - 1) + weight.shape[-1:]
    assert scale.dtype == np.float32
    integers = quantizer.integers(weight)
    assert integers.dtype == zero_point.dtype == np.int8
    assert integers.min() >= quantizer.scheme.qmin
    assert integers.max() <= quantizer.scheme.qmax
    from_training = np.rint(apply(quantizer, weight) / scale) + zero_point
    np.testing.assert_array_equal(from_training, integers)


@given(weights, bits, st.booleans())
def test_dequantized_weight_is_what_the_integers_stand_for(weight, bits, symmetric):
    quantizer = WeightQuantizer(QuantizationScheme(bits, symmetric=symmetric, axis=-1))
    scale, zero_point = (p.astype("float64") for p in quantizer.parameters(weight))
    dequantized = quantizer.dequantized(weight)
    assert dequantized.dtype == np.float32
    np.testing.assert_allclose(dequantized, (quantizer.integers(weight) - zero_point) * scale, rtol=1e-6)
    if symmetric:  # an affine range may end between two integers, and then shrinks
        np.testing.assert_array_equal(quantizer.integers(dequantized), quantizer.integers(weight))


@given(weights, bits)
def test_greatest_magnitude_of_a_channel_is_the_last_integer(weight, bits):
    quantizer = WeightQuantizer(QuantizationScheme(bits, axis=-1))
    greatest = np.abs(quantizer.integers(weight)).reshape(-1, weight.shape[-1]).max(axis=0)
    zeros = np.abs(weight).reshape(-1, weight.shape[-1]).max(axis=0) <= 1e-12 * quantizer.scheme.qmax
    assert greatest.tolist() == np.where(zeros, 0, quantizer.scheme.qmax).tolist()


def test_channels_do_not_share_a_scale():
    weight = np.float32([[0.001, 100.0], [-0.002, 50.0]])
    per_channel = apply(WeightQuantizer(QuantizationScheme(axis=-1)), weight)
    per_tensor = apply(WeightQuantizer(QuantizationScheme()), weight)
    np.testing.assert_allclose(per_channel[:, 0], [0.001, -0.002], rtol=0.01)
    assert per_tensor[:, 0].tolist() == [0, 0]


def test_quantizing_twice_changes_nothing():
    weight = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32")
    quantizer = WeightQuantizer(QuantizationScheme(axis=-1))
    once = apply(quantizer, weight)
    np.testing.assert_allclose(apply(quantizer, once), once, rtol=1e-6)


def test_channel_of_zeros_stays_zero():
    weight = np.float32([[0.0, 1.0], [0.0, -1.0]])
    assert apply(WeightQuantizer(QuantizationScheme(axis=-1)), weight)[:, 0].tolist() == [0, 0]


def test_gradient_passes_to_every_weight():
    weight = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    quantizer = WeightQuantizer(QuantizationScheme(axis=-1))
    upstream = np.arange(18, dtype="float32").reshape(6, 3)
    (gradient,) = gradients(lambda w: ops.sum(quantizer(w) * ops.convert_to_tensor(upstream)), weight)
    # The range is the weight's own: nothing is clipped, but float rounding decides on the extreme weight itself.
    extreme = np.abs(weight) == np.abs(weight).max(axis=0)
    np.testing.assert_allclose(gradient[~extreme], upstream[~extreme])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_quantized_in_float32(dtype):
    weight = ops.cast(np.random.default_rng(0).normal(size=(4, 3)).astype("float32"), dtype)
    quantizer = WeightQuantizer(QuantizationScheme(axis=-1))
    expected = apply(quantizer, ops.convert_to_numpy(ops.cast(weight, "float32")))
    np.testing.assert_array_equal(ops.convert_to_numpy(quantizer(weight)), expected)


def test_has_no_state_and_survives_its_config():
    quantizer = WeightQuantizer(QuantizationScheme(bits=4, axis=(-2, -1)), name="kernel_quantizer")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(quantizer))
    assert copy.scheme == quantizer.scheme
    assert copy.name == quantizer.name
    assert copy.weights == []


def test_an_observer_stands_in_for_the_quantizer():
    quantizer = WeightQuantizer(QuantizationScheme(2))
    weight = np.array([[0.3, -1.0]], "float32")
    quantizer.observer = lambda w: 2 * w
    np.testing.assert_array_equal(apply(quantizer, weight), 2 * weight)
    quantizer.observer = None
    np.testing.assert_array_equal(apply(quantizer, weight), [[0.0, -1.0]])
