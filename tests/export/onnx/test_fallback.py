import importlib.util

import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees
from small_models import randomize

from tensorflow_quantization import quantize_model
from tensorflow_quantization.export import OpsetError, UnsupportedLayerError, emitter, export_onnx
from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx import fallback
from tensorflow_quantization.model.keras_internals import nodes_of

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


def _log_gamma(x):
    import tensorflow as tf

    return tf.math.lgamma(x)


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


class Constant(layers.Layer):
    """Returns a weight, which is an output of the converted graph."""

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(1, 4))

    def call(self, inputs):
        import tensorflow as tf

        return tf.identity(self.bias)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((1, 4))


@needs_tf2onnx
def test_a_weight_that_is_the_output(tmp_path):
    inputs = keras.Input((4,))
    assert_agrees(randomize(keras.Model(inputs, inputs + Constant()(inputs))), tmp_path / "m.onnx")


@needs_tf2onnx
def test_lambda(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(lambda x: x * 2 + 1, name="double")(inputs))
    proto = assert_agrees(model, tmp_path / "m.onnx")
    assert all(node.name.startswith("double") for node in proto.graph.node)


@needs_tf2onnx
def test_exact_gelu_of_the_backend(tmp_path):
    """TensorFlow computes it by erfc, for which ONNX has no operator."""

    class Gelu(layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return 0.5 * inputs * tf.math.erfc(tf.stack([-inputs * np.float32(0.5**0.5)])[0])

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape)

    inputs = keras.Input((4,))
    proto = assert_agrees(keras.Model(inputs, Gelu(name="own")(inputs)), tmp_path / "m.onnx")
    assert "Erf" in [node.op_type for node in proto.graph.node]


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


@needs_tf2onnx
def test_refusal_has_the_whole_reason_and_does_not_recommend_what_failed(tmp_path):
    class ToSquare(layers.Layer):
        def call(self, inputs):
            side = int(np.sqrt(float(keras.ops.shape(inputs)[1] * keras.ops.shape(inputs)[2])))
            return keras.ops.image.resize(inputs, (side, side))

        def compute_output_shape(self, input_shape):
            return (input_shape[0], None, None, input_shape[3])

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, ToSquare(name="square")(inputs))
    with pytest.raises(UnsupportedLayerError) as found:
        export_onnx(model, tmp_path / "m.onnx")
    message = str(found.value)
    assert "cannot trace its `call`: its Resize needs a number that is known only at run time" in message
    assert "is no simple formula of the sizes of a tensor: " in message
    assert "whose keras.Input has known sizes" in message
    assert "tf2onnx cannot convert it: " in message
    assert "pip install" not in message


def test_without_it_the_error_says_what_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(lambda x: x * 2, name="double")(inputs))
    with pytest.raises(UnsupportedLayerError, match=r"(?s)double \(Lambda\).*pip install tf2onnx"):
        export_onnx(model, tmp_path / "m.onnx")


class Refused(layers.Layer):
    """Has an emitter that writes something and then refuses."""

    def call(self, inputs):
        return keras.ops.tanh(inputs)


@emitter(Refused)
def emit_refused(e, layer, x):
    e.op("Exp", e.op("Sin", x), name="begun")
    raise NotExpressibleError("is refused")


@needs_tf2onnx
def test_what_an_emitter_refuses_is_converted(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.Add()([layers.BatchNormalization()(x), Refused(name="refused")(x)])
    model = randomize(keras.Model(inputs, layers.Conv2D(2, 3)(x)))
    proto = assert_agrees(model, tmp_path / "m.onnx")
    assert {"Tanh"} <= {n.op_type for n in proto.graph.node}
    assert not {"Sin", "Exp"} & {n.op_type for n in proto.graph.node}


@needs_tf2onnx
def test_what_it_had_begun_keeps_nothing_from_being_folded(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = Refused()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    proto = assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx")
    assert not {"BatchNormalization", "Sin"} & {n.op_type for n in proto.graph.node}


@needs_tf2onnx
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.LSTM(3, activation="relu6"), (None, 4)),
        (lambda: layers.GRU(3, activation="swish", return_sequences=True), (None, 4)),
    ],
)
def test_arguments_that_an_emitter_refuses(tmp_path, layer, shape):
    inputs = keras.Input(shape)
    assert_agrees(randomize(keras.Model(inputs, layer()(inputs))), tmp_path / "m.onnx")


@needs_tf2onnx
def test_a_mask_among_the_arguments_is_an_input_of_what_is_converted(tmp_path):
    inputs, mask = keras.Input((3, 4, 2)), keras.Input((3, 4), dtype="bool")
    y = layers.TimeDistributed(layers.LSTM(2))(inputs, mask=mask)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(5, 3, 4, 2)).astype("float32"), rng.integers(0, 2, (5, 3, 4)).astype(bool)]
    assert_agrees(randomize(keras.Model([inputs, mask], y)), tmp_path / "m.onnx", arrays)


@needs_tf2onnx
@pytest.mark.parametrize(
    ("layer", "shape", "reasons"),
    [
        (
            lambda: layers.Resizing(5, 4, interpolation="bicubic"),
            (None, None, 2),
            "build the model for images of one size; and tf2onnx cannot convert it: .*only supports",
        ),
        (lambda: layers.RandomCrop(4, 4), (8, 8, 2), "does not crop .*; and tf2onnx cannot convert it: .*Keras infers"),
        (lambda: layers.GRU(3, activation=_log_gamma), (None, 4), "fixed number of steps; and tf2onnx .*for Lgamma"),
    ],
)
def test_a_conversion_that_would_not_run_or_agree(tmp_path, layer, shape, reasons):
    inputs = keras.Input(shape)
    with pytest.raises(UnsupportedLayerError, match=reasons):
        export_onnx(keras.Model(inputs, layer()(inputs)), tmp_path / "m.onnx")


@needs_tf2onnx
def test_both_reasons_are_given(tmp_path):
    class Both(layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.numpy_function(lambda x: np.asarray(x) + 1, [inputs], tf.float32)

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape)

    emitter(Both)(emit_refused)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Both(name="odd")(inputs))
    with pytest.raises(
        UnsupportedLayerError, match=r"odd \(Both\): is refused; and tf2onnx cannot convert it: "
    ) as error:
        export_onnx(model, tmp_path / "m.onnx")
    assert "Register an emitter" not in str(error.value)
    with pytest.raises(UnsupportedLayerError, match=r"is refused; and .* needs ONNX opset 17"):
        export_onnx(keras.Model(inputs, Refused()(inputs)), tmp_path / "m.onnx", opset=13)
    with pytest.raises(OpsetError):
        export_onnx(keras.Model(inputs, layers.Lambda(lambda x: x)(inputs)), tmp_path / "m.onnx", opset=13)


class Stateful(Refused):
    stateful = True


emitter(Stateful)(emit_refused)


def test_what_a_conversion_would_not_see_is_not_converted(tmp_path):
    inputs = keras.Input((4, 3))
    quantized = quantize_model(keras.Model(inputs, layers.Dense(3, name="dense")(inputs)))
    wrapper = quantized.layers[-1]

    class Holder(Refused):
        def __init__(self):
            super().__init__()
            self.inner = wrapper

    emitter(Holder)(emit_refused)
    for layer in (Stateful(), Holder()):
        with pytest.raises(UnsupportedLayerError, match=r"is refused$"):
            export_onnx(keras.Model(inputs, layer(inputs)), tmp_path / "m.onnx")


class Masked(layers.Layer):
    def call(self, inputs, mask=None):
        return inputs if mask is None else inputs * keras.ops.cast(mask, "float32")[..., None]


@emitter(Masked)
def emit_masked(e, layer, x, mask=None):
    raise NotExpressibleError("is refused")


def test_a_mask_that_is_no_argument_of_the_call_is_not_lost(tmp_path):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, Masked()(layers.Masking()(inputs)))
    node = nodes_of(model.layers[-1])[0]
    node.arguments.kwargs.pop("mask", None)  # as some versions of Keras leave it to when the model runs
    with pytest.raises(UnsupportedLayerError, match=r"is refused$"):
        export_onnx(model, tmp_path / "m.onnx")
