import itertools

import keras
import numpy as np
import onnx
import pytest
from accuracy_networks import decibels, depthwise, images, outputs, quantized, rounding_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization import QuantizationSpec, calibrate, export_onnx, quantize_model
from tensorflow_quantization.accuracy import correct_biases, round_weights
from tensorflow_quantization.accuracy.kernels import kernels_of
from tensorflow_quantization.accuracy.rounding import rounded_to_sums


def test_without_data_each_channel_keeps_its_sum():
    model = depthwise()
    quantized_model = round_weights(quantize_model(model, target="onnxruntime"))
    for kernel in kernels_of(quantized_model):
        name = kernel.wrapper.layer.name
        before = kernel.form.matrix(keras.ops.convert_to_numpy(model.get_layer(name).kernel.value))
        after, scale, _ = kernel.matrices()
        shift = (after - before).sum(axis=1) / scale[:, 0]
        assert np.abs(shift).max() <= 0.501, name  # half a step, and float rounding


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), heavy=st.booleans())
def test_sums_are_kept_at_the_least_squared_error(seed, heavy):
    weight, scale, pinned, _ = rounding_problem(seed, groups=1, size=6, channels=2, heavy=heavy)
    chosen = rounded_to_sums(weight, scale, pinned, -7, 7)
    nearest = np.round(weight / scale)
    for channel in range(2):
        w, s = weight[0, :, channel], scale[0, 0, channel]
        rivals = (nearest[0, :, channel] + np.array(moves) for moves in itertools.product((-1, 0, 1), repeat=6))
        kept = [q for q in rivals if np.abs(q).max() <= 7 and abs((q * s - w).sum()) <= s / 2]
        got = chosen[0, :, channel]
        assert abs((got * s - w).sum()) <= s / 2 + 1e-9
        assert ((got * s - w) ** 2).sum() <= min(((q * s - w) ** 2).sum() for q in kept) + 1e-9


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_with_data_is_better_than_to_nearest(bits):
    model = depthwise()
    expected = outputs(model, images(seed=5))
    nearest = quantized(model, target="onnxruntime", weight_bits=bits)
    before = decibels(expected, outputs(nearest, images(seed=5)))
    after = decibels(expected, outputs(round_weights(nearest, images()), images(seed=5)))
    assert after > before + 3


def test_beside_the_float_model_a_kernel_makes_up_for_the_layer_before():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(32, name="coarse")(inputs)  # its outputs have all of the inputs in them, four times
    model = keras.Model(inputs, keras.layers.Dense(6)(hidden))
    x = np.random.default_rng(0).standard_normal((2, 1024, 8)).astype("float32")
    spec = QuantizationSpec()
    spec.add("coarse", weight_bits=3)
    ratios = []
    for reference in (None, model):
        made = calibrate(quantize_model(model, quantization_spec=spec), x[0], verbose=0)
        correct_biases(model, round_weights(made, x[0], reference), x[0])
        ratios.append(decibels(outputs(model, x[1]), outputs(made, x[1])))
    assert ratios[1] > ratios[0] + 5


def test_a_model_without_data_is_an_error():
    with pytest.raises(ValueError, match="pass data, too"):
        round_weights(quantized(depthwise()), model=depthwise())


def test_the_integers_are_saved_exported_and_trained_from(tmp_path):
    model = round_weights(quantized(depthwise(), target="onnxruntime", weight_bits=7), images())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(kernels_of(model), kernels_of(loaded), strict=True):
        assert np.array_equal(one.quantizer.integers(one.value), other.quantizer.integers(other.value))
    export_onnx(model, tmp_path / "model.onnx", verify_with=images(4))
    file = onnx.load(tmp_path / "model.onnx")
    stored = {tuple(np.sort(onnx.numpy_helper.to_array(t).ravel())) for t in file.graph.initializer}
    pointwise = next(k for k in kernels_of(model) if k.wrapper.layer.name == "pointwise_0")
    assert tuple(np.sort(pointwise.quantizer.integers(pointwise.value).ravel())) in stored
    model.compile("sgd", "mse")
    model.fit(images(8), np.zeros((8, 10)), verbose=0)


def test_without_data_each_block_keeps_its_sum():
    inputs = keras.Input((40,))
    made = quantize_model(keras.Model(inputs, keras.layers.Dense(6)(inputs)), target="onnxruntime", block_size=16)
    (kernel,) = kernels_of(made)
    before, (_, scale, _) = kernel.value, kernel.matrices()
    round_weights(made)
    np.testing.assert_array_equal(kernel.matrices()[1], scale)  # what the scales come from stays
    after = kernel.quantizer.dequantized(kernel.value)
    for rows in (slice(16), slice(16, 32), slice(32, 40)):
        lacking = np.abs(after[rows].sum(axis=0) - before[rows].sum(axis=0))
        assert (lacking <= 0.51 * scale[0, rows][0]).all()


def test_rounding_blocks_with_data_is_better_than_to_nearest():
    inputs = keras.Input((40,))
    model = keras.Model(inputs, keras.layers.Dense(6)(inputs))
    errors = np.zeros(2)
    for seed in range(4):  # the gain of one draw is between 40 and 80 %
        rng = np.random.default_rng(seed)
        model.set_weights([rng.uniform(-0.4, 0.4, weight.shape) for weight in model.weights])
        x = rng.uniform(0, 2, (64, 40)).astype("float32")
        for rounds in (False, True):
            made = quantize_model(model, target="onnxruntime", block_size=16)
            if rounds:
                round_weights(made, x)
            errors[int(rounds)] += np.square(made.predict(x, verbose=0) - model.predict(x, verbose=0)).mean()
    assert errors[1] < 0.5 * errors[0]


def test_it_is_deterministic():
    first, second = (round_weights(quantized(depthwise()), images()) for _ in range(2))
    for one, other in zip(kernels_of(first), kernels_of(second), strict=True):
        assert np.array_equal(one.value, other.value)


def test_values_that_are_nan_are_an_error_and_nothing_changes():
    model = quantized(depthwise())
    before = [kernel.value for kernel in kernels_of(model)]
    with pytest.raises(ValueError, match="'quant_stem' got values that are NaN"):
        round_weights(model, np.full((4, 16, 16, 3), np.nan, "float32"))
    assert all(np.array_equal(a, k.value) for a, k in zip(before, kernels_of(model), strict=True))
