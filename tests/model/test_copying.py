import warnings
from typing import ClassVar

import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.model.copying import copy_of

GAIN = 2.0


def double(x):
    return ops.relu(x) * GAIN


@keras.saving.register_keras_serializable("tests")
def triple(x):
    return 3 * x


def closure(factor):
    def inside(x):
        return x * factor

    return inside


FUNCTIONS = {
    "lambda": lambda x: x * GAIN,
    "lambda_of_ops": lambda x: ops.relu(x),
    "lambda_of_numpy": lambda x: x * float(np.pi),
    "named": double,
    "registered": triple,
    "closure": closure(0.5),
    "of_keras": keras.activations.gelu,
    "bound_method": layers.ReLU().call,
    "builtin": abs,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lambda_layer_keeps_its_function(name):
    assert copy_of(layers.Lambda(FUNCTIONS[name])).function is FUNCTIONS[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_stays_the_same_function(name):
    function = FUNCTIONS[name]
    assert copy_of(layers.Activation(function)).activation is function
    assert copy_of(layers.Dense(2, activation=function)).activation is function


def test_functions_in_all_arguments_of_a_lambda_layer():
    def output_shape(shape):
        return (*shape[:-1], int(GAIN))

    def mask(x, mask):
        return mask

    inner = closure(3.0)
    layer = layers.Lambda(lambda x, f: f(x), output_shape, mask, {"f": inner, "others": [double, 1]}, name="mine")
    copy = copy_of(layer)
    assert (copy.mask, copy.arguments) == (mask, {"f": inner, "others": [double, 1]})
    assert copy.compute_output_shape((None, 5)) == (None, 2)
    assert copy.name == "mine"


def test_functions_of_layers_within_a_layer():
    function = closure(2.0)
    assert copy_of(layers.TimeDistributed(layers.Lambda(function))).layer.function is function
    cells = [layers.GRUCell(2, activation=function), layers.LSTMCell(2, recurrent_activation=double)]
    copy = copy_of(layers.RNN(cells))
    assert (copy.cell.cells[0].activation, copy.cell.cells[1].recurrent_activation) == (function, double)


def test_a_function_shared_by_name_with_keras_is_not_confused():
    def relu(x):
        return -x

    assert copy_of(layers.Lambda(relu)).function is relu
    assert copy_of(layers.Dense(2, activation=relu)).activation is relu


def test_the_bytecode_in_a_config_is_no_matter_of_a_copy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy_of(layers.Dense(2, activation=lambda x: x * GAIN))


def test_a_class_with_a_table_of_its_own_functions_gets_the_name():
    class Scaled(layers.Layer):
        functions: ClassVar = {"relu": closure(2.0), "own": closure(3.0)}

        def __init__(self, kind, **kwargs):
            super().__init__(**kwargs)
            self.name_of_kind, self.kind = kind, self.functions[kind]

        def get_config(self):
            return {**super().get_config(), "kind": self.name_of_kind}

    for kind, function in Scaled.functions.items():
        assert copy_of(Scaled(kind)).kind is function


class Block(layers.Layer):
    def __init__(self, function=None, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)
        self.function = layers.Lambda(lambda x: ops.relu(x) * GAIN)

    def call(self, x):
        return self.function(self.dense(x))


@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize("middle", [lambda: layers.Lambda(double), lambda: layers.Lambda(lambda x: x * GAIN), Block])
def test_quantized_model_calls_the_functions_of_the_float_model(middle, target):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(middle()(layers.Dense(4)(inputs))))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    expected = model.predict(x, verbose=0)
    got = calibrate(quantize_model(model, target=target), x, verbose=0).predict(x, verbose=0)
    assert np.linalg.norm(got - expected) < 0.1 * np.linalg.norm(expected)
