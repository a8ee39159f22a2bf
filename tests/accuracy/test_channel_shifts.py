import keras
import numpy as np
import pytest
from accuracy_networks import decibels, outputs
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.accuracy import equalization, equalize
from tensorflow_quantization.accuracy.channel_factors import rescalings
from tensorflow_quantization.accuracy.channel_shifts import Shift, possible_shift, shift_channels
from tensorflow_quantization.model.graph import LayerGraph

TOKENS, MAP = keras.Input((6, 8)), keras.Input((6, 6, 3))
NORM = layers.LayerNormalization


def attention(x, **arguments):
    x = NORM()(x)
    return layers.MultiHeadAttention(2, 4, **arguments)(x, x)


def expand(x, **arguments):
    """As between two inverted residuals: BatchNormalization, convolution, BatchNormalization."""
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(x))
    return layers.BatchNormalization()(layers.Conv2D(8, use_bias=False, **arguments)(x))


LINEAR = {
    "dense": (TOKENS, lambda x: layers.Dense(5)(NORM()(x))),
    "einsum": (TOKENS, lambda x: layers.EinsumDense("abc,dce->abde", (None, 2, 3), bias_axes="de")(NORM()(x))),
    "attention": (TOKENS, attention),
    "conv1d": (TOKENS, lambda x: layers.Conv1D(5, 3, strides=2)(NORM()(x))),
    "flat": (TOKENS, lambda x: layers.Dense(5)(layers.Flatten()(NORM()(x)))),
    "pooled": (MAP, lambda x: layers.Conv2D(4, 2)(layers.AveragePooling2D(2)(layers.Conv2D(5, 3)(x)))),
    "normalized": (MAP, lambda x: expand(x, kernel_size=1, padding="same")),
    "first": (
        keras.Input((3, 6, 6)),
        lambda x: layers.Conv2D(4, 2, data_format="channels_first")(layers.BatchNormalization(axis=1)(x)),
    ),
}
BEHIND_RELU = {
    "relu": (MAP, lambda x: layers.Conv2D(4, 3)(layers.Conv2D(5, 3, activation="relu")(x))),
    "prelu": (MAP, lambda x: layers.Conv2D(4, 3)(layers.PReLU()(layers.Conv2D(5, 3)(x)))),
    "flat": (MAP, lambda x: layers.Dense(4)(layers.Flatten()(layers.ReLU()(layers.BatchNormalization()(x))))),
}
UNSHIFTED = {
    "padding": (MAP, lambda x: layers.Conv2D(4, 3, padding="same")(layers.BatchNormalization()(x))),
    "zeros": (MAP, lambda x: layers.Conv2D(4, 3)(layers.ZeroPadding2D()(layers.BatchNormalization()(x)))),
    "dropout": (TOKENS, lambda x: layers.Dense(4)(layers.Dropout(0.5)(NORM()(x)))),
    "depthwise": (MAP, lambda x: layers.DepthwiseConv2D(3)(layers.BatchNormalization()(x))),
    "separable": (MAP, lambda x: layers.SeparableConv2D(4, 3)(layers.BatchNormalization()(x))),
    "groups": (TOKENS, lambda x: layers.Conv1D(4, 3, groups=2)(NORM()(x))),
    "transposed": (MAP, lambda x: layers.Conv2DTranspose(4, 3)(layers.BatchNormalization()(x))),
    "no bias": (TOKENS, lambda x: layers.Dense(4, use_bias=False)(NORM()(x))),
    "attention": (TOKENS, lambda x: attention(x, use_bias=False)),
    "bias of one axis": (TOKENS, lambda x: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e")(NORM()(x))),
    "no bias before": (TOKENS, lambda x: layers.Dense(4)(layers.Dense(4, use_bias=False)(x))),
    "pooled": (MAP, lambda x: layers.Dense(4)(layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(x)))),
    "no bias, relu": (
        MAP,
        lambda x: layers.BatchNormalization()(
            layers.Conv2D(4, 1, use_bias=False, activation="relu")(layers.BatchNormalization()(x))
        ),
    ),
}  # fmt: skip


def network(part):
    keras.utils.set_random_seed(0)
    inputs, function = part
    model = keras.Model(inputs, function(inputs))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "variance" not in weight.path:
            weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    return model


def last_place(model):
    graph = LayerGraph.trace(model).flatten()
    return graph, list(rescalings(graph))[-1]


def samples(model, count=16):
    return np.random.default_rng(2).normal(size=(count, *model.input_shape[1:])).astype("float32")


def gains_by_shifts(model, x, monkeypatch):
    def decibels_in_integers():
        quantized = calibrate(quantize_model(equalize(model, x), target="onnxruntime"), x, verbose=0)
        return decibels(outputs(model, x), outputs(quantized, x))

    shifted = decibels_in_integers()
    monkeypatch.setattr(equalization, "possible_shift", lambda graph, place: Shift.NONE)
    assert shifted > 3 + decibels_in_integers()


def shift_last(model, shift):
    """Shifts the channels of the last place; returns whether its source has changed."""
    graph, place = last_place(model)
    before = place.source.operation.get_weights()
    shift_channels(graph, place, np.full(place.index.max() + 1, shift, "float32"))
    return any((a != b).any() for a, b in zip(before, place.source.operation.get_weights(), strict=True))


@pytest.mark.parametrize("name", LINEAR)
@given(shift=st.integers(-20, 20).filter(bool))
def test_a_shift_moves_from_one_bias_into_the_next(name, shift):
    model = network(LINEAR[name])
    assert possible_shift(*last_place(model)) is Shift.ANY
    x = samples(model)
    expected = outputs(model, x)
    assert shift_last(model, shift)
    np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BEHIND_RELU)
def test_behind_a_relu_it_does_down_to_the_least_value(name):
    model = network(BEHIND_RELU[name])
    assert possible_shift(*last_place(model)) is Shift.DOWN_TO_LEAST
    x = np.abs(samples(model))
    _, place = last_place(model)
    source = place.source.operation
    bias = source.beta if isinstance(source, layers.BatchNormalization) else source.bias
    bias.assign(bias + 30.0)
    expected = outputs(model, x)
    assert shift_last(model, 10.0)
    np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", UNSHIFTED)
def test_where_the_function_would_change_nothing_is_shifted(name):
    assert possible_shift(*last_place(network(UNSHIFTED[name]))) is Shift.NONE


@pytest.mark.parametrize("name", ["attention", "normalized"])
def test_training_goes_on_from_the_same_function(name):
    model = network(LINEAR[name])
    x = samples(model)
    expected = keras.ops.convert_to_numpy(model(x, training=True))
    model = network(LINEAR[name])
    assert shift_last(model, 3.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x, training=True)), expected, rtol=1e-4, atol=1e-5)


def test_equalize_centers_the_channels_behind_a_layer_normalization(monkeypatch):
    model = network(LINEAR["dense"])
    norm = next(layer for layer in model.layers if isinstance(layer, NORM))
    norm.beta.assign(np.linspace(-30, 30, 8))
    x = samples(model, 64)
    equalized = equalize(model, x)
    np.testing.assert_allclose(outputs(equalized, x), outputs(model, x), rtol=1e-4, atol=1e-5)
    centered = equalized.get_layer(norm.name)
    seen = outputs(keras.Model(equalized.input, centered.output), x).reshape(-1, 8)
    assert np.abs(seen.max(axis=0) + seen.min(axis=0)).max() < 0.3 * np.ptp(seen)
    gains_by_shifts(model, x, monkeypatch)


def test_equalize_shifts_what_a_relu_always_lets_pass(monkeypatch):
    model = network(BEHIND_RELU["relu"])
    source = model.layers[1]
    source.bias.assign(source.bias + 100.0)
    x = samples(model, 64)
    equalized = equalize(model, x)
    assert outputs(keras.Model(equalized.input, equalized.layers[1].output), x).min() > 0
    others = 1.5 * samples(model, 80)[64:]
    np.testing.assert_allclose(outputs(equalized, others), outputs(model, others), rtol=1e-3, atol=1e-4)
    gains_by_shifts(model, x, monkeypatch)
