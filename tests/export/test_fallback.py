import importlib.util

import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees
from small_models import randomize

from tensorflow_quantization.export import UnsupportedLayerError, export_onnx, fallback

installed = importlib.util.find_spec("tf2onnx") is not None and keras.backend.backend() == "tensorflow"
needs_tf2onnx = pytest.mark.skipif(not installed, reason="tf2onnx is not installed, or not the TensorFlow backend")


class OfTensorFlow(layers.Layer):
    """Keras cannot trace it, for it is code of the backend."""

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],))

    def call(self, inputs, training=False):
        import tensorflow as tf

        y = tf.nn.relu(tf.linalg.matmul(inputs, inputs, transpose_b=True)) @ inputs * self.gain
        return y * 2 if training else y

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor(inputs.shape)


class Several(OfTensorFlow):
    def build(self, input_shape):
        super().build(input_shape[0])

    def call(self, inputs):
        first, second = inputs
        return super().call(first), first - second

    def compute_output_spec(self, inputs):
        return [keras.KerasTensor(x.shape) for x in inputs]


@needs_tf2onnx
def test_code_of_the_backend(tmp_path):
    inputs = keras.Input((5, 3))
    x = layers.Dense(3, activation="relu")(inputs)
    x = OfTensorFlow(name="own")(x)
    proto = assert_agrees(randomize(keras.Model(inputs, layers.Dense(2)(x))), tmp_path / "m.onnx")
    assert any(node.name.startswith("own/") for node in proto.graph.node)


@needs_tf2onnx
def test_behind_a_convolution_it_gets_the_order_of_keras(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = OfTensorFlow(name="own")(layers.Conv2D(4, 3)(inputs))
    assert_agrees(randomize(keras.Model(inputs, layers.Conv2D(2, 3)(x))), tmp_path / "m.onnx")


@needs_tf2onnx
def test_several_inputs_and_outputs_and_calls(tmp_path):
    inputs = [keras.Input((5, 3)), keras.Input((5, 3))]
    layer = Several()
    model = randomize(keras.Model(inputs, layer(layer(inputs))))
    assert_agrees(model, tmp_path / "m.onnx")


class ClassToken(layers.Layer):
    """Repeats a weight by the batch size, and looks positions up that it holds as a tensor."""

    def build(self, input_shape):
        self.token = self.add_weight(name="token", shape=(1, 1, input_shape[-1]))
        self.embedding = layers.Embedding(input_shape[1] + 1, input_shape[-1])
        self.embedding.build((1, input_shape[1] + 1))
        self.positions = keras.ops.expand_dims(keras.ops.arange(input_shape[1] + 1), axis=0)

    def call(self, inputs):
        token = keras.ops.tile(self.token, (keras.ops.shape(inputs)[0], 1, 1))
        return keras.ops.concatenate([token, inputs], axis=1) + self.embedding(self.positions)


@needs_tf2onnx
def test_tensors_that_a_layer_holds(tmp_path):
    inputs = keras.Input((5, 3))
    model = randomize(keras.Model(inputs, ClassToken()(inputs)))
    assert_agrees(model, tmp_path / "m.onnx", [np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")])


@needs_tf2onnx
def test_lambda(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(lambda x: x * 2 + 1, name="double")(inputs))
    proto = assert_agrees(model, tmp_path / "m.onnx")
    assert all(node.name.startswith("double") for node in proto.graph.node)


@needs_tf2onnx
def test_what_tf2onnx_cannot_convert_is_named(tmp_path):
    inputs = keras.Input((4,))

    class Numpy(layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.numpy_function(lambda x: np.asarray(x) + 1, [inputs], tf.float32)

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape)

    with pytest.raises(UnsupportedLayerError, match=r"(?s)odd \(Numpy\).*tf2onnx cannot convert it.*@emitter\(Numpy\)"):
        export_onnx(keras.Model(inputs, Numpy(name="odd")(inputs)), tmp_path / "m.onnx")


def test_without_it_the_error_says_what_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(lambda x: x * 2, name="double")(inputs))
    with pytest.raises(UnsupportedLayerError, match=r"(?s)double \(Lambda\).*pip install tf2onnx"):
        export_onnx(model, tmp_path / "m.onnx")
