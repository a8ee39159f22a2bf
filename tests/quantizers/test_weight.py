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


def learned(weight, bits=4, axis=-1, **kwargs):
    quantizer = WeightQuantizer(QuantizationScheme(bits, axis=axis), "learned", **kwargs)
    quantizer.build(weight.shape)
    return quantizer


def channels(weight):
    """The values of each channel of the last axis, float64."""
    return weight.astype("float64").reshape(-1, weight.shape[-1]).T


@given(weights, bits)
def test_learned_steps_start_at_the_least_squared_error(weight, bits):
    quantizer = learned(weight, bits)
    quantizer.start(weight)
    (scale, zero_point), qmax = quantizer.parameters(weight), quantizer.scheme.qmax
    assert scale.shape == (1,) * (weight.ndim - 1) + weight.shape[-1:]
    assert not zero_point.any()
    for values, step in zip(channels(weight), scale.ravel(), strict=True):

        def error(step, values=values):
            return ((np.clip(np.round(values / step), -qmax, qmax) * step - values) ** 2).sum()

        greatest = np.abs(values).max()
        if greatest > 1e-6:
            candidates = [error(fraction * greatest / qmax) for fraction in np.linspace(0.2, 1, 81)]
            assert error(step.astype("float64")) <= min(candidates) * (1 + 1e-3) + 1e-9 * greatest**2


@given(weights, bits, st.integers(0, 2**32 - 1))
def test_learned_steps_have_the_same_integers_in_training_and_file(weight, bits, seed):
    quantizer = learned(weight, bits)
    quantizer.start(weight)
    quantizer.step_change.assign(np.random.default_rng(seed).uniform(-1.1, 0.5, quantizer.step_change.shape))
    scale, _ = quantizer.parameters(weight)
    assert scale.dtype == np.float32
    assert (scale > 0).all()
    np.testing.assert_array_equal(ops.convert_to_numpy(quantizer.scale(ops.convert_to_tensor(weight))), scale)
    integers = quantizer.integers(weight)
    ties = np.abs(np.abs(weight / scale) % 1 - 0.5) < 1e-4  # XLA divides by multiplying with the reciprocal
    from_training = np.rint(apply(quantizer, weight) / scale)
    np.testing.assert_array_equal(from_training[~ties], integers[~ties])


def lsq_gradient(values, step, upstream, qmin, qmax):
    """Section 2.1 and 2.2 of arXiv:1902.08153 for values that share a step."""
    ratio = values / step
    inside = np.round(ratio) - ratio
    local = np.where(ratio <= qmin, qmin, np.where(ratio >= qmax, qmax, inside))
    return (local * upstream).sum() / np.sqrt(values.size * qmax)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_descent_moves_learned_steps_as_in_lsq(bits):
    rng = np.random.default_rng(0)
    weight = rng.normal(0, [0.01, 1, 30], (3, 3, 5, 3)).astype("float32")
    upstream = rng.normal(size=weight.shape).astype("float32")
    quantizer = learned(weight, bits)
    quantizer.start(0.7 * weight)  # clips some weights, and none is exactly at the limit
    before, _ = quantizer.parameters(weight)
    expected = [
        step - 1e-6 * lsq_gradient(values, step, above, quantizer.scheme.qmin, quantizer.scheme.qmax)
        for values, step, above in zip(
            channels(weight), before.ravel().astype("float64"), channels(upstream), strict=True
        )
    ]

    def loss(change):
        with keras.StatelessScope([(quantizer.step_change, change)]):
            return ops.sum(quantizer(ops.convert_to_tensor(weight)) * ops.convert_to_tensor(upstream))

    (gradient,) = gradients(loss, np.zeros(before.shape, "float32"))
    quantizer.step_change.assign(-1e-6 * gradient)
    after = before.astype("float64") * (1 - 1e-6 * gradient.astype("float64"))
    np.testing.assert_allclose(after.ravel() - before.ravel(), expected - before.ravel(), rtol=1e-3)
    np.testing.assert_allclose(quantizer.parameters(weight)[0], after, rtol=1e-6)


def test_learned_steps_pass_the_gradient_to_weights_in_range():
    weight = np.float32([[0.3, 5.0], [-0.9, 1.0], [1.2, -5.0]])
    quantizer = learned(weight)
    quantizer.steps.assign([[0.1, 1.0]])
    (gradient,) = gradients(lambda w: ops.sum(quantizer(w)), weight)
    assert gradient.tolist() == [[1, 1], [0, 1], [0, 1]]  # 0.7 is the limit of the first channel


def test_learned_steps_follow_the_weight_until_they_start():
    weight = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    quantizer, plain = learned(weight), WeightQuantizer(QuantizationScheme(4, axis=-1))
    assert quantizer.follows_weight
    np.testing.assert_array_equal(quantizer.integers(2 * weight), plain.integers(2 * weight))
    quantizer.start(weight)
    assert not quantizer.follows_weight
    scale, _ = quantizer.parameters(weight)
    np.testing.assert_array_equal(quantizer.parameters(2 * weight)[0], scale)


def test_learned_steps_survive_their_config_and_are_the_only_trained_weight():
    quantizer = learned(np.ones((2, 3)))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(quantizer))
    assert copy.learns
    assert [v.name for v in quantizer.trainable_weights] == ["step_change"]
    old = WeightQuantizer(QuantizationScheme()).get_config()
    del old["ranges"]  # as in files of earlier versions
    assert not WeightQuantizer.from_config(old).learns


@pytest.mark.parametrize("scheme", [QuantizationScheme(symmetric=False), QuantizationScheme(signed=False)])
def test_learned_steps_refuse_integers_with_a_zero_point(scheme):
    with pytest.raises(ValueError, match="signed, symmetric"):
        WeightQuantizer(scheme, "learned")


def test_unknown_ranges_are_refused():
    with pytest.raises(ValueError, match="weight_ranges must be one of 'minmax', 'learned', got 'learnt'"):
        WeightQuantizer(QuantizationScheme(), "learnt")
