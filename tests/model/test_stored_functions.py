"""Activation functions that a file holds as operations."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.model.graph import Tensor
from tensorflow_quantization.model.stored_functions import StoredFunction, store_activation

X = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
OUTPUT = Tensor((None, 6, 8), "float32", "y")


def quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


@keras.saving.register_keras_serializable("test_stored_functions")
def registered(x):
    return x * 2


def stored(layer):
    store_activation(layer, OUTPUT)
    return layer.activation


@pytest.mark.parametrize("function", [quick_gelu, lambda x: 2 * ops.relu(x)], ids=["function", "lambda"])
def test_function_that_is_not_registered_is_loaded_from_a_config_alone(function):
    layer = layers.Activation(function)
    expected = layer(X)
    assert isinstance(stored(layer), StoredFunction)
    config = json.loads(json.dumps(layer.get_config()))
    assert function.__name__.strip("<>") in json.dumps(config)
    np.testing.assert_array_equal(layers.Activation.from_config(config)(X), expected)


@pytest.mark.parametrize("function", ["relu", registered, keras.activations.gelu, None])
def test_function_that_keras_finds_by_its_name_stays(function):
    layer = layers.Dense(8, activation=function)
    before = layer.activation
    assert stored(layer) is before


def test_function_that_cannot_be_traced_stays():
    def of_arrays(x):
        return np.tanh(np.asarray(x))

    assert stored(layers.Activation(of_arrays)) is of_arrays


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + (x.shape[-1] or 0),
        lambda x: x + keras.random.normal(ops.shape(x)),
    ],
    ids=["of a size", "random"],
)
def test_function_that_is_another_one_once_it_is_traced_stays(function):
    assert stored(layers.Activation(function)) is function


class Block(layers.Layer):
    """A layer whose code gives its layers their functions."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.activation = layers.Dense(8, activation=quick_gelu), layers.Activation(quick_gelu)

    def call(self, x):
        return self.activation(self.dense(x))


def test_function_of_a_layer_of_the_model_is_found_by_its_name(tmp_path):
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.Dense(8, activation=quick_gelu)(inputs))
    quantized = calibrate(quantize_model(model), X, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", custom_objects={"quick_gelu": quick_gelu})
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m(X)) for m in (loaded, quantized)))


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_quantized_model_with_such_functions_loads(tmp_path, target):
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.Dense(3)(Block()(inputs)))
    quantized = calibrate(quantize_model(model, target=target), X, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m(X)) for m in (loaded, quantized)))
    assert model.layers[1].dense.activation is quick_gelu
