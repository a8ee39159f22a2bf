import keras
import pytest
from accuracy_networks import decibels, images, outputs

from tensorflow_quantization import QuantizationSpec, export_onnx, post_training_quantize, quantize_model
from tensorflow_quantization.accuracy.small_kernels import SmallKernels
from tensorflow_quantization.wrappers.queries import weight_quantizers_in


def mobile():
    """Depthwise kernels of 9 weights for each channel between pointwise ones, and most weights near the outputs."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = x = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(x)
    for i in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depthwise_{i}")(x)
        x = layers.Conv2D(32, 1, activation="relu", name=f"pointwise_{i}")(x)
    x = layers.Dense(1024, activation="relu", name="wide")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(20, name="scores")(x))


def bits(model):
    """By layer."""
    layers = (layer for layer in model.layers if list(weight_quantizers_in(layer)))
    return {layer.name.removeprefix("quant_"): next(iter(weight_quantizers_in(layer))).scheme.bits for layer in layers}


def test_the_layers_with_the_fewest_weights_are_chosen():
    found = SmallKernels(quantize_model(mobile(), weight_bits=4), 7).paths
    assert found == ["depthwise_0", "depthwise_1", "stem"]  # 288, 288 and 864 of 56,736; the next has 1,024


@pytest.mark.parametrize(("copies", "expected"), [(26, []), (28, ["few"])])
def test_more_than_their_share_of_the_weights_are_not_chosen(copies, expected):
    """The first kernel has 1/27 of all weights, or 1/29; 3.5 % are 1/28.6."""
    inputs = keras.Input((64,), name="x")
    x = keras.layers.Dense(64, use_bias=False, activation="relu", name="few")(inputs)
    x = keras.layers.Concatenate(name="wide")([x] * copies)
    model = keras.Model(inputs, keras.layers.Dense(64, use_bias=False, name="many")(x))
    assert SmallKernels(quantize_model(model, weight_bits=4), 7).paths == expected


def test_they_keep_7_bits_and_all_others_have_the_asked_ones():
    model = mobile()
    found = bits(post_training_quantize(model, images(8), weight_bits=4, verbose=0))
    assert found["depthwise_0"] == found["depthwise_1"] == 7
    assert found["wide"] == found["scores"] == 4


@pytest.mark.parametrize(("small", "expected"), [(None, 4), (6, 6)])
def test_their_bits_can_be_chosen(small, expected):
    found = bits(post_training_quantize(mobile(), images(8), weight_bits=4, small_kernel_bits=small, verbose=0))
    assert found["depthwise_0"] == expected
    assert found["wide"] == 4


def test_the_spec_wins():
    spec = QuantizationSpec()
    spec.add("depthwise_0", weight_bits=4)
    found = bits(post_training_quantize(mobile(), images(8), weight_bits=4, quantization_spec=spec, verbose=0))
    assert (found["depthwise_0"], found["depthwise_1"]) == (4, 7)


def test_layers_in_nested_models_are_found():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Softmax()(mobile()(inputs)))
    quantized = post_training_quantize(model, images(8), weight_bits=4, verbose=0)
    (nested,) = [layer for layer in quantized.layers if isinstance(layer, keras.Model)]
    assert bits(nested)["depthwise_0"] == 7


def test_noise_falls_and_the_file_agrees(tmp_path):
    model, x = mobile(), images(seed=5)
    expected = outputs(model, x)
    plain, better = (
        post_training_quantize(model, images(), target="onnxruntime", weight_bits=4, small_kernel_bits=n, verbose=0)
        for n in (None, 7)
    )
    assert decibels(expected, outputs(better, x)) > decibels(expected, outputs(plain, x)) + 1
    files = [export_onnx(m, tmp_path / f"{i}.onnx", verify_with=images(4)) for i, m in enumerate((plain, better))]
    before, after = (file.stat().st_size for file in files)
    assert after < 1.04 * before


def test_impossible_bits_are_an_error():
    with pytest.raises(ValueError, match="small_kernel_bits"):
        post_training_quantize(mobile(), images(8), weight_bits=4, small_kernel_bits=9)
