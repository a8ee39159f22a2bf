import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import calibrate, quantize_model


def images(count=16):
    return np.random.default_rng(0).random((count, 8, 8, 3)).astype("float32")


def plain(x):
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(6, 3, name="conv")(x))
    return layers.BatchNormalization(name="second")(layers.Conv2D(4, 3)(layers.ReLU()(x)))


def depthwise(x):
    x = layers.BatchNormalization(name="bn")(layers.DepthwiseConv2D(3, use_bias=False)(x))
    return layers.Add()([x, layers.Conv2D(3, 1)(x)])


def normalized_first(x):
    return layers.Conv2D(4, 3)(layers.BatchNormalization(name="bn")(x))


def nested(x):
    inner = keras.Input((8, 8, 3))
    return keras.Model(inner, plain(inner), name="body")(x)


def dense(x):
    return layers.BatchNormalization(name="bn")(layers.Dense(8)(layers.Flatten()(x)))


NETWORKS = (plain, depthwise, normalized_first, nested, dense)


def trained(make, data):
    """A model whose moving statistics come from `data`."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, make(inputs))
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(12):
        model(data, training=True)
    return model


def warnings_of(model, data, target=None, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        calibrate(quantize_model(model, target=target), data, verbose=0, **arguments)
    return [str(w.message) for w in caught if "another scale" in str(w.message)]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_images_of_0_to_255_for_0_to_1(make, target):
    (message,) = warnings_of(trained(make, images()), 255 * images(), target)
    assert "bn' got values around" in message and "its statistics of the training say" in message


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize(
    "data",
    [
        images(),
        images()[:1],
        np.zeros((4, 8, 8, 3), "float32"),
        np.ones((1, 8, 8, 3), "float32"),
        np.random.default_rng(1).normal(0.5, 0.5, (4, 8, 8, 3)).astype("float32"),
    ],
    ids=["training_data", "one_sample", "black", "white", "other_distribution"],
)
def test_good_data_raises_no_alarm(make, data):
    assert warnings_of(trained(make, images()), data) == []


def test_a_network_that_was_never_trained_raises_no_alarm():
    inputs = keras.Input((8, 8, 3))
    assert warnings_of(keras.Model(inputs, plain(inputs)), 255 * images()) == []


def test_a_channel_that_is_dead_in_training_raises_no_alarm():
    model = trained(plain, images())
    variance = model.get_layer("bn").moving_variance
    variance.assign(np.where(np.arange(6) == 0, 0.0, np.array(variance.numpy())))
    assert warnings_of(model, images()) == []


def test_the_ranges_do_not_depend_on_the_check():
    model = trained(plain, images())
    quantized = calibrate(quantize_model(model, target="onnxruntime"), images(), method="percentile", verbose=0)
    quantizer = quantized.layers[1] if hasattr(quantized.layers[1], "range") else None
    assert quantizer is not None
    assert 0.98 < float(quantizer.range.numpy()[1]) <= 1.0


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("factor", [255, 127.5])
def test_images_that_are_scaled_twice(make, factor):
    (message,) = warnings_of(trained(make, images()), images() / factor)
    assert "bn' got values around" in message and "divided by 255 twice" in message


@pytest.mark.parametrize("data", [255 * images(), images() / 255])
def test_a_normalization_layer_knows_the_data_that_it_was_adapted_to(data):
    inputs = keras.Input((8, 8, 3))
    layer = layers.Normalization(name="scale")
    layer.adapt(images())
    model = keras.Model(inputs, layers.Conv2D(4, 3)(layer(inputs)))
    (message,) = warnings_of(model, data)
    assert "Layer 'scale' got values around" in message
    assert warnings_of(model, images()) == []


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Normalization(),  # never adapted
        lambda: layers.Normalization(axis=None, mean=0.5, variance=0.08),
        lambda: layers.Normalization(axis=1, mean=[0.5] * 8, variance=[0.08] * 8),
        lambda: layers.Normalization(invert=True, mean=[100.0] * 3, variance=[5.0] * 3),
    ],
)
def test_other_normalization_layers_raise_no_alarm(layer):
    inputs = keras.Input((8, 8, 3))
    assert warnings_of(keras.Model(inputs, layers.Conv2D(4, 3)(layer()(inputs))), images()) == []
