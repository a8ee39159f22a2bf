import keras
import pytest
from keras import layers, ops

from tensorflow_quantization.model.activations import Activation, activation_of, last_activation, own_activation
from tensorflow_quantization.model.graph import LayerGraph


@pytest.mark.parametrize(
    ("layer", "activation"),
    [
        (layers.ReLU(), Activation.RELU),
        (layers.ReLU(6.0), Activation.RELU6),
        (layers.ReLU(1.0), Activation.OTHER),
        (layers.ReLU(negative_slope=0.1), Activation.LEAKY_RELU),
        (layers.Activation("gelu"), Activation.GELU),
        (layers.Activation("linear"), Activation.LINEAR),
        (layers.Activation(lambda x: x), Activation.OTHER),
        (layers.Softmax(), Activation.SOFTMAX),
        (layers.Dense(3, activation="relu"), None),
    ],
)
def test_activation_of_a_layer(layer, activation):
    assert activation_of(layer) is activation


@pytest.mark.parametrize(
    ("operation", "activation"),
    [
        (ops.relu, Activation.RELU),
        (ops.tanh, Activation.TANH),
        (ops.abs, None),
        (keras.activations.relu, Activation.RELU),
        (lambda x: keras.activations.relu(x, max_value=6.0), Activation.RELU6),
        (lambda x: keras.activations.relu(x, negative_slope=0.1), Activation.LEAKY_RELU),
        (lambda x: keras.activations.relu(x, max_value=3.0), Activation.OTHER),
    ],
)
def test_activation_of_an_operation(operation, activation):
    inputs = keras.Input((4,))
    (call,) = LayerGraph.trace(keras.Model(inputs, operation(inputs))).calls
    assert activation_of(call.operation) is activation


def test_own_activation_is_the_argument_of_a_layer_that_does_more():
    assert own_activation(layers.Dense(3, activation="relu")) is Activation.RELU
    assert own_activation(layers.Dense(3)) is Activation.LINEAR
    assert own_activation(layers.ReLU()) is Activation.LINEAR


def test_last_activation_of_a_tensor():
    inputs = keras.Input((4,))
    graph = LayerGraph.trace(keras.Model(inputs, layers.Dense(3, activation="sigmoid")(inputs)))
    assert last_activation(graph.outputs[0]) is Activation.SIGMOID
    assert last_activation(graph.inputs[0]) is Activation.LINEAR


def test_what_is_known_of_activations():
    assert Activation.RELU.clips
    assert not Activation.SIGMOID.clips
    assert Activation.SIGMOID.is_never_negative
    assert not Activation.TANH.is_never_negative
