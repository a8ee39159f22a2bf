import keras
import numpy as np
import pytest
from accuracy_networks import branches, decibels, depthwise, images, outputs, quantized, rescale
from keras import layers

from tensorflow_quantization.accuracy import equalize
from tensorflow_quantization.accuracy.channel_factors import rescalings
from tensorflow_quantization.model.graph import LayerGraph


def places(model):
    return {p.source.name: [call.name for call in p.readers] for p in rescalings(LayerGraph.trace(model).flatten())}


def test_factors_move_through_all_that_keeps_them():
    assert places(branches()) == {
        "stem": ["depthwise"],
        "norm": ["pointwise"],
        "pointwise": ["groups"],
        "groups": ["transposed"],
        "transposed": ["separable"],
        "norm_1": ["attention"],
        "norm_2": ["mix"],
    }


@pytest.mark.parametrize("activation", ["relu6", "silu", "gelu", "sigmoid", "tanh"])
def test_other_activations_stop_factors(activation):
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation(activation)(layers.Conv2D(4, 3)(inputs))
    assert places(keras.Model(inputs, layers.Conv2D(4, 3)(x))) == {}


def test_thresholds_sums_and_outputs_stop_factors():
    inputs = keras.Input((8, 8, 3))
    threshold = layers.ReLU(threshold=1.0)(layers.Conv2D(4, 3)(inputs))
    limited = layers.ReLU(max_value=3.0)(layers.Conv2D(4, 1)(threshold))
    x = layers.Conv2D(4, 1)(limited)
    x = layers.Conv2D(4, 1)(layers.Add()([x, limited]))
    assert places(keras.Model(inputs, [x, layers.Conv2D(4, 1)(x)])) == {}


def test_a_layer_that_is_called_twice_stays():
    inputs = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 1, name="shared")
    x = shared(layers.ReLU()(shared(inputs)))
    assert places(keras.Model(inputs, layers.Conv2D(2, 1)(x))) == {}


def test_flatten_repeats_the_factors_of_channels():
    inputs = keras.Input((4, 4, 3))
    x = layers.Flatten()(layers.Conv2D(5, 1, activation="relu", name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="fc")(x))
    x = np.random.default_rng(0).random((8, 4, 4, 3), "float32")
    assert places(model) == {"conv": ["fc"]}
    np.testing.assert_allclose(outputs(rescale(equalize(model, x)), x), outputs(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [depthwise, branches])
def test_the_function_stays_and_the_model_too(build):
    model = build()
    before = model.get_weights()
    x = images(seed=5)
    expected = outputs(model, x)
    equalized = equalize(model, images())
    np.testing.assert_allclose(outputs(equalized, x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs(rescale(equalize(model, images())), x), expected, rtol=1e-3, atol=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert [layer.name for layer in equalized.layers] == [layer.name for layer in model.layers]


@pytest.mark.slow
@pytest.mark.parametrize("build", [depthwise, branches])
def test_a_network_with_rescaled_channels_is_quantized_as_well_as_before(build):
    model, x = build(), images(seed=5)
    expected = outputs(model, x)
    ruined = rescale(equalize(model, images()))
    assert decibels(expected, outputs(quantized(ruined), x)) < 15
    mended = equalize(ruined, images())
    unscaled = equalize(model, images())
    for layer, other in zip(mended.layers, unscaled.layers, strict=True):  # the same factors, whatever they were before
        for one, two in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(np.abs(one), np.abs(two), rtol=0.02, atol=1e-5)


def test_nan_is_an_error():
    with pytest.raises(ValueError, match="NaN or infinite"):
        equalize(depthwise(), np.full((4, 16, 16, 3), np.nan, "float32"))
