import keras
import pytest
from keras import layers
from onnx_models import assert_agrees

from tensorflow_quantization import quantize_model
from tensorflow_quantization.export import emitter
from tensorflow_quantization.export.onnx import registry
from tensorflow_quantization.export.onnx.registry import find_emitter
from tensorflow_quantization.model.keras_internals import origin


class OwnLayer(layers.Layer):
    def call(self, x):
        return keras.ops.relu(x)


class SameComputation(layers.Dense):
    """Another configuration, the same computation."""

    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)

    def get_config(self):
        return super().get_config()


class OtherCall(layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class WeightStandardization(layers.Conv2D):
    """Overrides what `call` calls, as Keras' own example of such a layer does."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


class Dense(layers.Layer):
    """Called like a layer of Keras, and something else."""

    def call(self, x):
        return x


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.mark.parametrize("key", [OwnLayer, "OwnLayer"])
def test_a_layer_is_found_by_class_and_by_name(key):
    @emitter(key)
    def emit(e, layer, x):
        return x

    assert find_emitter(OwnLayer()).function is emit


def test_a_subclass_that_computes_the_same_has_the_emitter_of_its_base():
    assert find_emitter(SameComputation()) is find_emitter(layers.Dense(3))


@pytest.mark.parametrize("layer", [lambda: OtherCall(3), lambda: WeightStandardization(3, 3), Dense])
def test_a_class_that_computes_otherwise_has_none(layer):
    assert find_emitter(layer()) is None


def test_a_subclass_may_have_an_emitter_of_its_own():
    @emitter(OtherCall)
    def emit(e, layer, x):
        return x

    assert find_emitter(OtherCall(3)).function is emit


def test_an_activation_function_is_found():
    assert find_emitter(keras.activations.relu) is find_emitter(layers.ReLU())
    assert find_emitter(lambda x: x) is None


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match=r"layout must be 'keras', 'channels_first', 'any' or a function, got 'NCHW'"):
        emitter(OwnLayer, layout="NCHW")


def test_layers_and_operations_of_the_same_name_are_told_apart():
    x = keras.Input((3,))
    operation = origin(x + x).operation
    assert type(operation).__name__ == type(layers.Add()).__name__ == "Add"
    assert find_emitter(operation) is not find_emitter(layers.Add())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="they are functions of TensorFlow")
@pytest.mark.parametrize("name", ["elu", "relu", "relu6", "selu", "sigmoid", "softmax", "softplus", "softsign", "tanh"])
def test_activation_functions_of_tensorflow(tmp_path, name):
    import tensorflow as tf

    function = {"softplus": tf.math.softplus}.get(name) or getattr(tf.nn, name)
    inputs = keras.Input((6, 6, 3))
    model = quantize_model(keras.Model(inputs, keras.layers.Conv2D(4, 3, activation=function)(inputs)))
    assert_agrees(model, tmp_path / "m.onnx")
