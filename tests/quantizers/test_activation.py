import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from small_models import gradients

from tensorflow_quantization.model.keras_internals import keras_mask
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, numerics
from tensorflow_quantization.quantizers.activation import LEARNED, LEARNED_OFFSET, RANGES

INT8 = QuantizationScheme()
AFFINE = QuantizationScheme(8, signed=False, symmetric=False, narrow_range=False)


def batch(low, high):
    return ops.convert_to_tensor(np.linspace(low, high, 64, dtype="float32").reshape(2, 32))


def range_of(quantizer):
    return ops.convert_to_numpy(quantizer.range).tolist()


def variables_of(quantizer):
    return [ops.convert_to_numpy(v).tolist() for v in quantizer.variables]


def test_unseen_range_is_plus_minus_six():
    quantizer = ActivationQuantizer(INT8)
    assert not quantizer.seen
    assert range_of(quantizer) == [-6, 6]
    scale, zero_point = quantizer.parameters()
    np.testing.assert_allclose(scale, 6 / 127, rtol=1e-6)
    assert zero_point == 0


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("training", [False, None])
def test_inference_leaves_the_range_alone(ranges, training):
    quantizer = ActivationQuantizer(INT8, ranges)
    before = variables_of(quantizer)
    quantizer(batch(-1, 1), training=training)
    assert variables_of(quantizer) == before
    assert not quantizer.seen


def test_ema_averages_the_batches():
    quantizer = ActivationQuantizer(INT8, "ema")
    quantizer(batch(-1, 1), training=True)
    assert quantizer.seen
    np.testing.assert_allclose(range_of(quantizer), [-1, 1])
    quantizer(batch(-3, 2), training=True)
    np.testing.assert_allclose(range_of(quantizer), [-2, 1.5])


@pytest.mark.parametrize("ranges", RANGES)
def test_shared_range_follows_one_of_two_tensors(ranges):
    first = ActivationQuantizer(INT8, ranges)
    second = ActivationQuantizer(INT8, ranges, same_as=first)
    assert not second.seen
    first(batch(-1, 2), training=True)
    before = variables_of(first)
    second(batch(-100, 100), training=True)
    assert variables_of(first) == variables_of(second) == before
    assert second.seen
    assert second.parameters() == first.parameters()
    both = keras.Sequential([keras.Input((32,)), first, second])
    assert len(both.variables) == len(first.variables)


def test_last_takes_the_last_batch():
    quantizer = ActivationQuantizer(INT8, "last")
    for low, high in ((-1, 1), (-3, 2)):
        quantizer(batch(low, high), training=True)
    assert range_of(quantizer) == [-3, 2]


def test_training_quantizes_with_the_range_of_the_batch_it_just_saw():
    quantizer = ActivationQuantizer(INT8, "last")
    x = batch(-1, 1)
    y = ops.convert_to_numpy(quantizer(x, training=True))
    assert np.abs(y - ops.convert_to_numpy(x)).max() <= 0.5 / 127 * 1.001


@pytest.mark.parametrize("ranges", RANGES)
def test_frozen_range_stays(ranges):
    quantizer = ActivationQuantizer(INT8, ranges, frozen=True)
    before = variables_of(quantizer)
    quantizer(batch(-1, 1), training=True)
    assert variables_of(quantizer) == before


@pytest.mark.parametrize("ranges", ["ema", "last"])
def test_untrainable_quantizer_takes_its_first_range_and_keeps_it(ranges):
    quantizer = ActivationQuantizer(INT8, ranges, trainable=False)
    quantizer(batch(-1, 1), training=True)
    quantizer(batch(-9, 9), training=True)
    assert range_of(quantizer) == [-1, 1]


def test_learned_step_starts_as_in_lsq():
    quantizer = ActivationQuantizer(INT8, "learned")
    x = batch(-1, 3)
    quantizer(x, training=True)
    expected = 2 * np.abs(ops.convert_to_numpy(x)).mean() / math.sqrt(127)
    np.testing.assert_allclose(quantizer.parameters()[0], expected, rtol=1e-5)
    quantizer(batch(-100, 100), training=True)
    np.testing.assert_allclose(quantizer.parameters()[0], expected, rtol=1e-5)


def test_learned_step_is_the_only_trained_weight():
    assert [w.name for w in ActivationQuantizer(INT8, "learned").trainable_weights] == ["step_change"]
    assert ActivationQuantizer(INT8, "ema").trainable_weights == []


def test_learned_zero_point_is_trained_where_the_scheme_has_one():
    names = [w.name for w in ActivationQuantizer(AFFINE, "learned_offset").trainable_weights]
    assert names == ["step_change", "offset"]
    assert [w.name for w in ActivationQuantizer(INT8, "learned_offset").trainable_weights] == ["step_change"]
    assert [w.name for w in ActivationQuantizer(AFFINE, "learned").trainable_weights] == ["step_change"]


@pytest.mark.parametrize("largest", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("ranges", [LEARNED, LEARNED_OFFSET])
def test_descent_moves_a_learned_step_as_in_lsq(ranges, largest):
    quantizer = ActivationQuantizer(AFFINE, ranges)
    quantizer.set_range(-largest, 2 * largest)
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(0, 3 * largest, (4, 8)), rng.normal(size=(4, 8))
    scale, zero_point = (float(p) for p in quantizer.parameters())
    ratio = x / scale + zero_point
    to_step = np.where(
        ratio <= AFFINE.qmin, -zero_point, np.where(ratio >= 255, 255 - zero_point, np.round(ratio) - ratio)
    )
    expected = np.sum(upstream * to_step) / np.sqrt(8 * 255)  # of the step itself, in LSQ

    def loss(*changes):
        with keras.StatelessScope(list(zip(quantizer.trainable_weights, changes, strict=True))):
            return ops.sum(quantizer(ops.cast(x, "float32")) * ops.cast(upstream, "float32"))

    found = gradients(loss, *[np.float32(0)] * len(quantizer.trainable_weights))
    np.testing.assert_allclose(scale * found[0], expected, rtol=1e-3)
    if ranges == LEARNED_OFFSET:
        clipped = np.sum(upstream * ((ratio < AFFINE.qmin) | (ratio > AFFINE.qmax)))
        np.testing.assert_allclose(scale * found[1], clipped / np.sqrt(8 * 255), rtol=1e-3)


@given(steps=st.floats(-300, 300, width=32))
def test_learned_zero_point_moves_the_range_and_keeps_zero_a_level(steps):
    quantizer = ActivationQuantizer(AFFINE, "learned_offset")
    quantizer.set_range(-2, 8)
    quantizer.offset.assign(steps)
    scale, zero_point = quantizer.parameters()
    low, high = quantizer.limits()
    assert abs(low - np.clip(-2 + steps * scale, -10, 0)) <= 0.51 * scale
    assert abs(high - low - 10) < 1e-4
    assert AFFINE.qmin <= zero_point <= AFFINE.qmax
    assert not ops.convert_to_numpy(quantizer(ops.zeros((3,)))).any()


def test_learned_zero_point_follows_what_is_clipped():
    quantizer = ActivationQuantizer(AFFINE, "learned_offset")
    quantizer.set_range(-1, 1)
    x = ops.full((4, 8), 1.5)  # beyond the range

    def loss(offset):
        with keras.StatelessScope([(quantizer.offset, offset)]):
            return ops.sum((quantizer(x) - x) ** 2)

    (to_offset,) = gradients(loss, np.float32(0))
    assert to_offset < 0  # the range should move up


def test_learned_step_stays_positive_whatever_training_does():
    quantizer = ActivationQuantizer(INT8, "learned")
    quantizer.set_range(-1, 1)
    quantizer.step_change.assign(-1e3)
    scale, _ = quantizer.parameters()
    assert scale > 0
    assert np.isfinite(ops.convert_to_numpy(quantizer(batch(-1, 1)))).all()


@pytest.mark.parametrize("ranges", RANGES)
def test_set_range_counts_as_data(ranges):
    quantizer = ActivationQuantizer(INT8, ranges)
    for weight in quantizer.trainable_weights:
        weight.assign(5.0)
    quantizer.set_range(-2, 4)
    assert quantizer.seen
    assert range_of(quantizer) == [-2, 4]
    np.testing.assert_allclose(quantizer.parameters()[0], 4 / 127, rtol=1e-6)


def test_learning_goes_on_from_a_calibrated_range():
    quantizer = ActivationQuantizer(INT8, "learned")
    quantizer.set_range(-2, 4)
    quantizer(batch(-1, 1), training=True)
    np.testing.assert_allclose(quantizer.parameters()[0], 4 / 127, rtol=1e-6)


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize(
    "scheme",
    [INT8, QuantizationScheme(bits=4), QuantizationScheme(8, False, False, False)],
    ids=["int8", "int4", "affine"],
)
def test_output_is_that_of_the_parameters_it_reports(ranges, scheme):
    quantizer = ActivationQuantizer(scheme, ranges)
    quantizer.set_range(-0.7, 1.3)
    if ranges in (LEARNED, LEARNED_OFFSET):
        quantizer.step_change.assign(0.001)
    if quantizer.learns_offset:
        quantizer.offset.assign(-2.6)
    scale, zero_point = quantizer.parameters()
    assert scale.dtype == np.float32
    assert zero_point.dtype == scheme.dtype
    x = np.random.default_rng(0).normal(size=(8, 9)).astype("float32")
    integers = numerics.quantize(x, scale, np.float32(zero_point), scheme, np)
    y = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(y, (integers - zero_point) * scale, rtol=1e-5, atol=1e-6)


def test_observer_stands_in_for_quantization():
    quantizer = ActivationQuantizer(INT8)
    quantizer.observer = lambda x: x + 1.0
    x = batch(-20, 20)
    np.testing.assert_array_equal(ops.convert_to_numpy(quantizer(x, training=True)), ops.convert_to_numpy(x) + 1.0)
    assert range_of(quantizer) == [-6, 6]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_of_the_input_is_kept(dtype):
    quantizer = ActivationQuantizer(INT8)
    y = quantizer(ops.cast(batch(-1, 1), dtype), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert all(keras.backend.standardize_dtype(v.dtype) == "float32" for v in quantizer.variables)


def test_passes_the_mask_on():
    x = keras.layers.Masking()(keras.Input((3, 2)))
    assert keras_mask(ActivationQuantizer(INT8)(x)) is not None


@pytest.mark.parametrize("ranges", RANGES)
def test_survives_its_config(ranges):
    quantizer = ActivationQuantizer(QuantizationScheme(bits=4, symmetric=False), ranges, frozen=True, name="q")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(quantizer))
    assert copy.get_config() == quantizer.get_config()
    assert [v.shape for v in copy.variables] == [v.shape for v in quantizer.variables]


@pytest.mark.parametrize("ranges", ["EMA", "max", None, 1])
def test_unknown_ranges_are_refused(ranges):
    with pytest.raises(ValueError, match=f"one of 'ema', 'last', 'learned', 'learned_offset', got {ranges!r}"):
        ActivationQuantizer(INT8, ranges)


def test_channel_axis_is_refused():
    with pytest.raises(ValueError, match="per tensor"):
        ActivationQuantizer(QuantizationScheme(axis=-1))


def test_blocks_are_refused():
    with pytest.raises(ValueError, match="the scheme has block_size 32, which is for weights"):
        ActivationQuantizer(QuantizationScheme(4, block_size=32))
