import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, export, run
from small_models import randomize

from tensorflow_quantization import QuantizationSpec, calibrate, quantize_model
from tensorflow_quantization.export import UnsupportedLayerError

TOKENS = np.asarray([[1, 2, 3, 4, 5], [3, 1, 0, 0, 0], [0, 2, 0, 1, 0]], "int32")


def tokens_model(function, **arguments):
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True, name="embedding", **arguments)(inputs)
    return randomize(keras.Model(inputs, keras.tree.flatten(function(x))))


FUNCTIONS = [
    lambda x: x,
    lambda x: layers.Dense(3)(x),
    lambda x: layers.LSTM(3)(x),
    lambda x: layers.GRU(3, return_sequences=True)(layers.Dropout(0.1)(layers.Dense(3)(x))),
    lambda x: layers.SimpleRNN(2)(layers.LSTM(3, return_sequences=True)(x)),
    lambda x: layers.Bidirectional(layers.LSTM(3))(x),
    lambda x: layers.LSTM(2)(layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)),
    lambda x: layers.GlobalAveragePooling1D()(x),
    lambda x: layers.GlobalAveragePooling1D(keepdims=True)(x),
    lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    lambda x: layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
    lambda x: layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True),
    lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x),
    lambda x: layers.Attention()([x, x]),
    lambda x: layers.AdditiveAttention()([x, x]),
    lambda x: layers.LSTM(3)(layers.Attention()([x, x])),
    lambda x: layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3)(x, x)),
    lambda x: layers.LSTM(3)(layers.Add()([x, layers.Dense(4)(x)])),
    lambda x: layers.LSTM(3)(layers.Concatenate()([x, layers.Dense(4)(x)])),
    lambda x: layers.LSTM(3)(layers.Add()([x, ops.relu(x)])),
    lambda x: layers.LSTM(3)(layers.TimeDistributed(layers.Dense(2))(x)),
    lambda x: layers.LSTM(3)(layers.LayerNormalization()(x)),
    lambda x: layers.Attention()([layers.Add()([x, layers.Dense(4)(x)]), x]),
]


def quantize_everything(model, target):
    """Quantized, and at least the output of the embedding, which makes the mask."""
    spec = QuantizationSpec()
    spec.add("embedding", quantize_input=False, quantize_output=True)
    return quantize_model(model, target=target, quantization_spec=spec)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_masks_of_tokens(tmp_path, function):
    assert_agrees(tokens_model(function), tmp_path / "m.onnx", [TOKENS])


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_masks_in_quantized_models(tmp_path, function, target):
    model = calibrate(quantize_everything(tokens_model(function), target), TOKENS, verbose=0)
    export(model, tmp_path / "m.onnx", verify_with=TOKENS, verify_runtime="onnxruntime")


def test_layers_behind_multi_head_attention_see_no_mask_of_its_input(tmp_path):
    def function(x):
        y = layers.MultiHeadAttention(2, 3)(x, x)
        z = layers.LayerNormalization()(layers.Add()([x, y]))
        return layers.Attention()([z, z])

    assert_agrees(tokens_model(function), tmp_path / "m.onnx", [TOKENS])


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize(
    "function",
    [lambda x: x, lambda x: layers.GRU(3)(x), lambda x: layers.GlobalAveragePooling1D()(x),
     lambda x: layers.Attention()([x, x])],
)  # fmt: skip
def test_masking(tmp_path, value, function):
    inputs = keras.Input((4, 3))
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")
    x[0, 2] = x[1, :2] = x[2, 1, 0] = value
    model = randomize(keras.Model(inputs, function(layers.Masking(value)(inputs))))
    assert_agrees(model, tmp_path / "m.onnx", [x])


@pytest.mark.parametrize("dtype", ["bool", "float32"])
def test_softmax(tmp_path, dtype):
    inputs, mask = keras.Input((2, 5)), keras.Input((2, 5), dtype="int32")
    y = layers.Softmax()(inputs, mask=ops.cast(mask, dtype))
    arrays = [np.random.default_rng(0).normal(size=(2, 2, 5)).astype("float32"), TOKENS[[0, 1, 2, 0]].reshape(2, 2, 5)]
    arrays[1] = (arrays[1] > 0).astype("int32")
    arrays[1][0, 0] = 0
    assert_agrees(keras.Model([inputs, mask], y), tmp_path / "m.onnx", arrays)


@pytest.mark.parametrize("kind", [layers.Multiply, layers.Maximum, layers.Minimum])
def test_layers_that_leave_out_masked_steps(tmp_path, kind):
    model = tokens_model(lambda x: kind()([x, layers.Dense(4)(x)]))
    with pytest.raises(UnsupportedLayerError, match="masked steps"):
        export(model, tmp_path / "m.onnx")


class Tokens(layers.Layer):
    """Looks rows up, and masks as `how` says."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how = how
        self.table = layers.Embedding(7, 4)

    def call(self, inputs):
        return self.table(inputs)

    def compute_mask(self, inputs, mask=None):
        return {
            "of its input": lambda: ops.not_equal(inputs, 0),
            "of two values": lambda: ops.logical_and(ops.not_equal(inputs, 0), ops.not_equal(inputs, 2)),
            "none": lambda: None,
        }[self.how]()

    def get_config(self):
        return {**super().get_config(), "how": self.how}


class Steps(layers.Layer):
    """Doubles the steps, and masks as `how` says."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how, self.supports_masking = how, True

    def call(self, inputs):
        return 2.0 * inputs

    def compute_mask(self, inputs, mask=None):
        return {"the same": mask, "none": None}[self.how] if self.how != "the others" else ops.logical_not(mask)

    def get_config(self):
        return {**super().get_config(), "how": self.how}


def own_mask_model(how, after=lambda x: x):
    inputs = keras.Input((5,), dtype="int32")
    x = after(Tokens(how)(inputs))
    # No other layer here reads the mask of the query from its tensor.
    return randomize(keras.Model(inputs, layers.MultiHeadAttention(2, 3)(x, x)))


@pytest.mark.parametrize("how", ["of its input", "of two values", "none"])
def test_a_mask_that_a_custom_layer_computes(tmp_path, how):
    assert_agrees(own_mask_model(how), tmp_path / "m.onnx", [TOKENS])


@pytest.mark.parametrize("how", ["the same", "the others", "none"])
def test_a_mask_that_a_custom_layer_computes_from_another(tmp_path, how):
    model = tokens_model(lambda x: (lambda y: layers.MultiHeadAttention(2, 3)(y, y))(Steps(how)(x)))
    assert_agrees(model, tmp_path / "m.onnx", [TOKENS])


def test_a_mask_that_a_custom_layer_computes_in_a_quantized_model(tmp_path):
    model = calibrate(quantize_model(own_mask_model("of its input"), target="onnxruntime"), TOKENS, verbose=0)
    export(model, tmp_path / "m.onnx", verify_with=TOKENS, verify_runtime="onnxruntime")
    (actual,) = run(tmp_path / "m.onnx", [TOKENS])
    # The whole file: a verification that lost the mask, too, would find both alike.
    np.testing.assert_allclose(actual, model.predict(TOKENS, verbose=0), atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf2onnx converts such a layer")
def test_a_mask_of_a_layer_with_a_row_for_each_of_a_few_positions(tmp_path):
    """Keras traces `arange(0, None)` as no positions, and the rows of the table as a constant."""

    class Positions(Tokens):
        def __init__(self, **kwargs):
            super().__init__("of its input", **kwargs)
            self.rows = layers.Embedding(9, 4)

        def call(self, inputs):
            return self.table(inputs) + self.rows(ops.arange(0, ops.shape(inputs)[-1], 1))

    inputs = keras.Input((None,), dtype="int32")
    x = Positions()(inputs)
    model = randomize(keras.Model(inputs, layers.MultiHeadAttention(2, 3)(x, x)))
    assert_agrees(model, tmp_path / "m.onnx", [TOKENS])


class Two(layers.Layer):
    """Looks rows up twice, with a mask for each."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Embedding(7, 4), layers.Embedding(7, 4)

    def call(self, inputs):
        return self.first(inputs), self.second(inputs)

    def compute_mask(self, inputs, mask=None):
        return [ops.not_equal(inputs, 0), ops.not_equal(inputs, 2)]


def test_masks_of_several_outputs(tmp_path):
    inputs = keras.Input((5,), dtype="int32")
    first, second = Two()(inputs)
    # The mask of the query comes from the tensor.
    y = [layers.MultiHeadAttention(2, 3)(x, x) for x in (first, second)]
    assert_agrees(randomize(keras.Model(inputs, y)), tmp_path / "m.onnx", [TOKENS])


class Masked(layers.Layer):
    """Returns what has a mask already, or says that it hands no mask on."""

    def __init__(self, masked, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(7, 4, mask_zero=masked)
        self.supports_masking = masked

    def call(self, inputs):
        return self.table(inputs)

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 2)


@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_that_keras_does_not_ask_for(tmp_path, masked):
    inputs = keras.Input((5,), dtype="int32")
    x = Masked(masked)(inputs)
    model = randomize(keras.Model(inputs, layers.MultiHeadAttention(2, 3)(x, x)))
    assert_agrees(model, tmp_path / "m.onnx", [TOKENS])
