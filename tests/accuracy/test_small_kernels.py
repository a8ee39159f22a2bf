import keras
import pytest
from accuracy_networks import decibels, images, outputs

from tensorflow_quantization import QuantizationSpec, export_onnx, post_training_quantize, quantize_model
from tensorflow_quantization.accuracy.small_kernels import SmallKernels
from tensorflow_quantization.wrappers.queries import weight_quantizers_in


def mobile():
    """Depthwise kernels of 9 weights for each channel between wide pointwise ones."""
    layers = keras.layers
    inputs = x = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(64, 3, padding="same", activation="relu", name="stem")(x)
    for i in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depthwise_{i}")(x)
        x = layers.Conv2D(64, 1, activation="relu", name=f"pointwise_{i}")(x)
    x = layers.Dense(1024, activation="relu", name="wide")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(5, name="scores")(x))


def bits(model):
    """By layer."""
    layers = (layer for layer in model.layers if list(weight_quantizers_in(layer)))
    return {layer.name.removeprefix("quant_"): next(iter(weight_quantizers_in(layer))).scheme.bits for layer in layers}


def test_kernels_of_few_weights_keep_7_bits():
    model = mobile()
    found = bits(post_training_quantize(model, images(8), weight_bits=4, verbose=0))
    assert found == {"stem": 7, "depthwise_0": 7, "depthwise_1": 7} | dict.fromkeys(
        ("pointwise_0", "pointwise_1", "wide", "scores"), 4
    )


@pytest.mark.parametrize(("small", "expected"), [(None, 4), (6, 6)])
def test_their_bits_can_be_chosen(small, expected):
    found = bits(post_training_quantize(mobile(), images(8), weight_bits=4, small_kernel_bits=small, verbose=0))
    assert found["depthwise_0"] == expected
    assert found["pointwise_0"] == 4


def test_the_spec_wins():
    spec = QuantizationSpec()
    spec.add("depthwise_0", weight_bits=4)
    found = bits(post_training_quantize(mobile(), images(8), weight_bits=4, quantization_spec=spec, verbose=0))
    assert (found["depthwise_0"], found["depthwise_1"]) == (4, 7)


def test_they_are_at_most_a_twentieth_of_the_weights_those_with_the_fewest_for_a_scale_first():
    model = mobile()
    quantized = quantize_model(model, weight_bits=4)
    assert SmallKernels(quantized, 8).paths == ["depthwise_0", "depthwise_1", "stem"]
    few = keras.Model(model.input, model.get_layer("pool").output)  # a depthwise kernel is 5.2 % of its weights
    assert SmallKernels(quantize_model(few, weight_bits=4), 8).paths == []


def test_layers_in_nested_models_are_found():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Softmax()(mobile()(inputs)))
    quantized = post_training_quantize(model, images(8), weight_bits=4, verbose=0)
    (nested,) = [layer for layer in quantized.layers if isinstance(layer, keras.Model)]
    assert bits(nested)["depthwise_0"] == 7


def features(model, x):
    """Behind the last convolution: the classifier has 4 bits either way."""
    (last,) = [layer for layer in model.layers if layer.name.removeprefix("quant_") == "pointwise_1"]
    return outputs(keras.Model(model.inputs, last.output), x)


def test_noise_falls_and_the_file_agrees(tmp_path):
    model, x = mobile(), images(seed=5)
    expected = features(model, x)
    plain, better = (
        post_training_quantize(model, images(), target="onnxruntime", weight_bits=4, small_kernel_bits=small, verbose=0)
        for small in (None, 7)
    )
    assert decibels(expected, features(better, x)) > decibels(expected, features(plain, x)) + 1
    files = [export_onnx(m, tmp_path / f"{i}.onnx", verify_with=images(4)) for i, m in enumerate((plain, better))]
    before, after = (file.stat().st_size for file in files)
    assert after < 1.05 * before


def test_impossible_bits_are_an_error():
    with pytest.raises(ValueError, match="small_kernel_bits"):
        post_training_quantize(mobile(), images(8), weight_bits=4, small_kernel_bits=9)
