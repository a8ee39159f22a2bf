import keras
import numpy as np
import pytest
from accuracy_networks import branches, decibels, depthwise, images, outputs, quantized
from keras import layers

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.accuracy import correct_biases
from tensorflow_quantization.model.weights import float32_array


def part(model, name):
    return keras.Model(model.inputs, model.get_layer(name).output)


@pytest.mark.parametrize("format", ["channels_last", "channels_first"])
def test_the_mean_of_each_channel_is_the_float_mean(format):
    if format == "channels_first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's convolutions on a CPU are channels-last")
    inputs = keras.Input((3, 16, 16) if format == "channels_first" else (16, 16, 3))
    y = layers.Conv2D(6, 3, data_format=format, name="conv")(inputs)
    model = keras.Model(inputs, y)
    x = np.moveaxis(images(), -1, 1) if format == "channels_first" else images()
    quantized_model = calibrate(quantize_model(model, weight_bits=3), x, verbose=0)
    axes = (0, 2, 3) if format == "channels_first" else (0, 1, 2)
    wrong = np.abs((outputs(quantized_model, x) - outputs(model, x)).mean(axes))
    right = np.abs((outputs(correct_biases(model, quantized_model, x), x) - outputs(model, x)).mean(axes))
    step = np.max(quantized_model.get_layer("quant_conv").input_quantizers[0].parameters()[0]) * np.max(
        quantized_model.get_layer("quant_conv")
        .weight_quantizers["kernel"]
        .parameters(keras.ops.convert_to_numpy(quantized_model.get_layer("quant_conv").layer.kernel.value))[0]
    )
    assert right.max() <= step and right.max() < wrong.max() / 10  # a bias is rounded to steps


def test_the_mean_before_an_activation_counts():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Conv2D(6, 3, activation="relu", name="conv")(inputs))
    linear = keras.models.clone_model(model)
    linear.set_weights(model.get_weights())
    linear.get_layer("conv").activation = keras.activations.linear
    corrected = correct_biases(model, quantized(model, weight_bits=3), images())
    corrected.get_layer("quant_conv").layer.activation = keras.activations.linear
    difference = (outputs(corrected, images()) - outputs(linear, images())).mean((0, 1, 2))
    assert np.abs(difference).max() < 0.01
    assert model.get_layer("conv").activation is keras.activations.relu


@pytest.mark.parametrize("channels", [4, 6])  # 6 as the height, where axes that are mistaken have the same size
def test_each_channel_of_a_layer_that_is_applied_to_steps(channels):
    inputs = keras.Input((3, 8, 8, 2))
    x = layers.TimeDistributed(layers.Conv2D(channels, 3, activation="relu"), name="steps")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    data = np.random.default_rng(0).normal(1, 1, (16, 3, 8, 8, 2)).astype("float32")
    before = calibrate(quantize_model(model, target="onnxruntime", weight_bits=3), data, verbose=0)
    noise = decibels(outputs(model, data), outputs(before, data))
    assert decibels(outputs(model, data), outputs(correct_biases(model, before, data), data)) > noise + 1


def test_a_folded_normalization_takes_the_shift():
    model = depthwise()
    corrected = correct_biases(model, quantized(model, target="onnxruntime", weight_bits=4), images())
    before, after = (float32_array(m.get_layer("norm_0").moving_mean) for m in (model, corrected))
    assert not np.allclose(before, after)
    expected, got = (outputs(part(m, "norm_0"), images()) for m in (model, corrected))
    assert np.abs((expected - got).mean((0, 1, 2))).max() < 0.02


def test_what_is_corrected_stays():
    model = depthwise()
    corrected = correct_biases(model, quantized(model, target="onnxruntime", weight_bits=4), images())
    weights = corrected.get_weights()
    correct_biases(model, corrected, images())
    for before, after in zip(weights, corrected.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=0.005)  # biases are rounded to steps; a second shift is 0.03


@pytest.mark.slow
@pytest.mark.parametrize("build", [depthwise, branches])
def test_outputs_are_nearer_to_the_float_outputs_and_the_file_agrees(build, tmp_path):
    model = build()
    expected = outputs(model, images(seed=5))
    quantized_model = quantized(model, target="onnxruntime", weight_bits=4)
    before = decibels(expected, outputs(quantized_model, images(seed=5)))
    correct_biases(model, quantized_model, images())
    assert decibels(expected, outputs(quantized_model, images(seed=5))) > before + 3
    export_onnx(quantized_model, tmp_path / "model.onnx", verify_with=images(4))


def test_the_float_model_is_unchanged():
    model = depthwise()
    before = model.get_weights()
    correct_biases(model, quantized(model), images(8))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
