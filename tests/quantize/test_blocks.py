"""Layers of one's own that are made of layers: opened, quantized inside, trained, exported."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import assert_same_arrays, randomize, values
from tensorflow_quantization.custom_qdq_cases import ResidualConnectionQDQCase

from tensorflow_quantization import (
    CustomQDQInsertionCase,
    QuantizationSpec,
    calibrate,
    describe,
    export_onnx,
    quantize_model,
)
from tensorflow_quantization.wrappers import wrappers_in

TARGETS = [None, "tensorrt", "onnxruntime", "openvino"]


class Residual(layers.Layer):
    """A residual block as people write it."""

    def __init__(self, filters, rate=0.25, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.rate = filters, rate
        self.conv1 = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv1")
        self.norm1 = layers.BatchNormalization(name="norm1")
        self.conv2 = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv2")
        self.norm2 = layers.BatchNormalization(name="norm2")
        self.dropout = layers.Dropout(rate, name="dropout")

    def build(self, input_shape):
        inner = (*input_shape[:-1], self.filters)
        for layer, shape in ((self.conv1, input_shape), (self.norm1, inner), (self.conv2, inner), (self.norm2, inner)):
            layer.build(shape)

    def call(self, inputs, training=None):
        x = ops.relu(self.norm1(self.conv1(inputs), training=training))
        x = self.dropout(self.norm2(self.conv2(x), training=training), training=training)
        return ops.relu(x + inputs)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "rate": self.rate}


class Stage(layers.Layer):
    """Blocks in a block."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.blocks = [Residual(filters, name=f"block{i}") for i in range(2)]

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


class Encoder(layers.Layer):
    """A transformer's, with a mask as an argument by keyword, and a constant."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.LayerNormalization(name="norm")
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.up, self.down = layers.Dense(16, activation="gelu", name="up"), layers.Dense(8, name="down")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.attention.build(input_shape, input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], 16))

    def call(self, inputs, padding=None):
        mask = None if padding is None else ops.expand_dims(padding, 1)
        x = self.norm(inputs)
        x = inputs + self.attention(x, x, attention_mask=mask)
        return x + self.down(self.up(x)) * ops.convert_to_tensor(np.full((8,), 0.5, "float32"))


def cnn(block):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.GlobalAveragePooling2D(name="gap")(block(x))
    return randomize(keras.Model(inputs, layers.Dense(5, name="head")(x)))


def images(count=8):
    return np.random.default_rng(1).normal(size=(count, 8, 8, 3)).astype("float32")


def result(model, *args, **kwargs):
    return ops.convert_to_numpy(model(*args, **kwargs))


def names(model):
    return {wrapper.name for layer in model.layers for wrapper in wrappers_in(layer)}


def reason(model, path):
    (found,) = [layer.reason for layer in describe(model).layers if layer.name == path]
    return found


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_layers_in_a_block_are_quantized_as_if_they_stood_in_the_model(tmp_path, target):
    model = cnn(Residual(4, name="block"))
    block = model.get_layer("block")
    x = model.get_layer("stem").output
    y = block.norm1(block.conv1(x))
    y = ops.relu(block.dropout(block.norm2(block.conv2(ops.relu(y)))) + x)
    twin = keras.Model(model.inputs, model.get_layer("head")(model.get_layer("gap")(y)))
    # Other methods choose between ranges, and the last bits of a tensor can decide.
    quantized, expected = (
        calibrate(quantize_model(m, target=target), images(), method="minmax", verbose=0) for m in (model, twin)
    )
    assert names(quantized) == names(expected)
    np.testing.assert_array_equal(result(quantized, images()), result(expected, images()))
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=images())


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_blocks_in_blocks(tmp_path, target):
    model = cnn(Stage(4, name="stage"))
    quantized = calibrate(quantize_model(model, target=target), images(), verbose=0)
    assert "stage/block1/quant_conv2" in {layer.name for layer in describe(quantized).layers}
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=images())


class Windows(layers.Layer):
    """Each half of an image apart, for which it goes where the batch is, and back."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(2, 2, name="conv")

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, inputs):
        batch, height, width, channels = ops.shape(inputs)
        halves = ops.reshape(inputs, (-1, height // 2, width, channels))
        return ops.reshape(self.conv(halves), (batch, -1, channels))


def test_a_block_that_reshapes_to_the_batch_size():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Flatten()(Windows(name="block")(inputs)))
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype("float32")
    quantized = calibrate(quantize_model(model), x, verbose=0)
    assert "quant_conv" in names(quantized)
    np.testing.assert_allclose(result(quantized, x), result(model, x), atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_transformer_with_a_mask(tmp_path, target):
    x, padding = keras.Input((6, 8)), keras.Input((6,), dtype="bool")
    y = Encoder(name="second")(Encoder(name="first")(x, padding=padding), padding=padding)
    model = randomize(keras.Model([x, padding], y))
    data = [np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32"), np.arange(24).reshape(4, 6) % 6 < 4]
    quantized = calibrate(quantize_model(model, target=target), data, verbose=0)
    assert {"quant_up", "quant_down"} <= names(quantized)
    assert ("quant_attention" in names(quantized)) == (target is not None)
    np.testing.assert_allclose(result(quantized, data), result(model, data), atol=0.2)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=data)


def test_a_block_trains_as_before():
    model = cnn(Residual(4, rate=0.5, name="block"))
    before = values(model)
    quantized = quantize_model(model)
    assert_same_arrays(values(model), before)
    block = quantized.get_layer("block")
    assert len(quantized.trainable_weights) == len(model.trainable_weights)
    moving = ops.convert_to_numpy(block.get_layer("norm1").moving_mean)
    quantized.compile("sgd", "mse")
    quantized.fit(images(), np.zeros((8, 5)), verbose=0)
    assert np.abs(ops.convert_to_numpy(block.get_layer("norm1").moving_mean) - moving).min() > 0
    a, b = (result(quantized, images(), training=True) for _ in range(2))
    assert np.abs(a - b).max() > 0  # dropout
    np.testing.assert_array_equal(result(quantized, images()), result(quantized, images()))


def test_a_block_that_is_frozen_stays_so():
    block = Residual(4, name="block")
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, layers.Conv2D(3, 1)(block(inputs, training=False)))
    block.trainable = False
    quantized = quantize_model(randomize(model))
    assert len(quantized.trainable_weights) == 2
    moving = ops.convert_to_numpy(quantized.get_layer("block").get_layer("norm1").moving_mean)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype("float32")
    quantized(x, training=True)
    after = quantized.get_layer("block").get_layer("norm1").moving_mean
    np.testing.assert_array_equal(ops.convert_to_numpy(after), moving)


def test_a_block_that_is_called_twice_has_its_weights_once(tmp_path):
    block = Residual(4, name="block")
    model = cnn(lambda x: block(block(x)))
    quantized = calibrate(quantize_model(model, target="onnxruntime"), images(), verbose=0)
    assert quantized.count_params() - model.count_params() < 100
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=images())


def test_a_file_loads_without_the_class_of_the_block(tmp_path):
    quantized = calibrate(quantize_model(cnn(Stage(4))), images(), verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(result(loaded, images()), result(quantized, images()))


def test_blocks_of_nested_and_sequential_and_subclassed_models():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([keras.Input((8, 8, 4)), Residual(4, name="block")], name="inner")
            self.block = Residual(4, name="other")

        def call(self, inputs):
            return self.block(self.inner(inputs))

    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype("float32")
    model(x)
    quantized = calibrate(quantize_model(model), x, verbose=0)
    found = {layer.name for layer in describe(quantized).layers}
    assert {"inner/block/quant_conv1", "other/quant_conv1"} <= found
    np.testing.assert_allclose(result(quantized, x), result(model, x), atol=0.3)


def test_a_block_that_the_spec_names_is_quantized_as_a_whole():
    spec = QuantizationSpec()
    spec.add("block", quantize_weight=False)
    quantized = quantize_model(cnn(Residual(4, name="block")), quantization_spec=spec)
    assert isinstance(quantized.get_layer("quant_block").layer, Residual)


@pytest.mark.parametrize("name", ["block/conv1", "conv1", "block/*1"])
def test_the_spec_names_layers_in_a_block(name):
    spec = QuantizationSpec()
    spec.add(name, weight_bits=4)
    quantized = quantize_model(cnn(Residual(4, name="block")), "partial", spec)
    assert "quant_conv1" in names(quantized)
    assert not {"quant_conv2", "quant_head"} & names(quantized)
    (quantizer,) = quantized.get_layer("block").get_layer("quant_conv1").weight_quantizers.values()
    assert quantizer.scheme.bits == 4


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_block_in_which_nothing_is_quantized_stays_a_layer():
    spec = QuantizationSpec()
    spec.add("head")
    quantized = quantize_model(cnn(Stage(4, name="stage")), "partial", spec)
    assert isinstance(quantized.get_layer("stage"), Stage)
    assert reason(quantized, "stage") == "nothing in it is quantized"
    off = QuantizationSpec()
    off.add(["conv1", "conv2"], quantize_input=False, quantize_weight=False)
    assert isinstance(quantize_model(cnn(Stage(4, name="stage")), quantization_spec=off).get_layer("stage"), Stage)


class Closed(layers.Layer):
    """A block with a convolution."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 1, name="conv")

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, inputs):
        return self.conv(inputs)


class ReadsKernel(Closed):
    def call(self, inputs):
        return self.conv(inputs) + ops.mean(self.conv.kernel)


class ReadsKernelInAnOperation(Closed):
    def call(self, inputs):
        return ops.multiply(self.conv(inputs), self.conv.bias)


class OtherInTraining(Closed):
    def call(self, inputs, training=None):
        x = self.conv(inputs)
        return 2 * x if training else x


class MaskOfItsOwn(Closed):
    def compute_mask(self, inputs, mask=None):
        return mask


class AddsLoss(Closed):
    def call(self, inputs):
        x = self.conv(inputs)
        self.add_loss(ops.mean(x))
        return x


class Rolls(Closed):
    def call(self, inputs):
        return self.conv(inputs) + ops.roll(inputs, ops.shape(inputs)[0], axis=1)


class Unused(Closed):
    def build(self, input_shape):
        super().build(input_shape)
        self.auxiliary = layers.Dense(2, name="auxiliary")
        self.auxiliary.build((None, 4))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (ReadsKernel, "its code reads the variable 'block/conv/kernel'"),
        (ReadsKernelInAnOperation, "its code reads the variable 'block/conv/bias'"),
        (OtherInTraining, "it computes something else in training"),
        (MaskOfItsOwn, "it overrides compute_mask"),
        (AddsLoss, "ValueError: `add_loss()` can only be called"),
        pytest.param(
            *(Rolls, "its Roll needs a size that is known only at run time"),
            marks=pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras cannot compute its shape"),
        ),
        (Unused, "it never calls its layer 'auxiliary'"),
        (lambda **kwargs: Closed(activity_regularizer="l2", **kwargs), "it has an activity regularizer"),
        (lambda **kwargs: Closed(dtype="mixed_float16", **kwargs), "it casts its inputs from float32 to float16"),
    ],
)
def test_a_block_that_a_model_of_its_layers_cannot_stand_for_stays_in_float(block, why):
    inputs = keras.Input((8, 8, 4))
    x = block(name="block")(inputs)
    model = randomize(keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x)))
    quantized = quantize_model(model)
    assert type(quantized.get_layer("block")) is type(model.get_layer("block"))
    assert reason(quantized, "block").startswith(f"its layers stay in float: {why}")
    assert "quant_last" in names(quantized)


class HandsOn(Closed):
    def call(self, inputs):
        return self.conv(inputs), inputs


def test_a_block_that_also_returns_its_input():
    inputs = keras.Input((8, 8, 4))
    x = layers.Concatenate()(HandsOn(name="block")(layers.Conv2D(4, 1, name="first")(inputs)))
    model = randomize(keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x)))
    assert "quant_conv" in names(quantize_model(model).get_layer("block"))


@keras.saving.register_keras_serializable("tests")
class Pair(layers.Layer):
    """States one shape, and returns two tensors and no cache."""

    def compute_output_shape(self, shape):
        return shape

    def call(self, inputs, cache=None):
        return inputs[:, 1:], inputs[:, 1:] * 2.0, cache


class Paired(layers.Layer):
    """A block with a layer that no functional model can hold."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.pair = layers.Dense(4, name="first"), Pair(name="pair")
        self.second = layers.Dense(4, name="second")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, inputs):
        a, b, _ = self.pair(self.first(inputs))
        return self.second(a + b)


@pytest.mark.parametrize("steps", [8, None])
def test_a_layer_whose_stated_output_is_wrong_is_opened(steps, tmp_path):
    inputs = keras.Input((steps, 4))
    model = randomize(keras.Model(inputs, Paired(name="block")(inputs)))
    quantized = quantize_model(model, target="onnxruntime")
    block = quantized.get_layer("block")
    assert {"quant_first", "quant_second"} <= set(names(block))
    x = np.random.default_rng(0).normal(size=(2, 8, 4)).astype("float32")
    calibrate(quantized, x, verbose=0)
    got, expected = (m.predict(x, verbose=0) for m in (quantized, model))
    assert np.sum((got - expected) ** 2) < 0.01 * np.sum(expected**2)
    quantized.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert_same_arrays([again.predict(x, verbose=0)], [quantized.predict(x, verbose=0)])


class Pictures(Closed):
    def call(self, inputs):
        return self.conv(ops.fft2((inputs, ops.zeros_like(inputs)))[0])

    def compute_output_shape(self, shape):
        return shape


def test_an_operation_that_keras_cannot_call_on_unknown_sizes_closes_the_block():
    inputs = keras.Input((None, None, 4))
    x = layers.Conv2D(4, 1, name="last")(Pictures(name="block")(inputs))
    quantized = quantize_model(randomize(keras.Model(inputs, x)))
    assert reason(quantized, "block").endswith("Keras cannot call its FFT2 on tensors of unknown sizes")


def test_a_block_that_is_called_in_several_ways_stays_in_float():
    encoder = Encoder(name="block")
    x, padding = keras.Input((6, 8)), keras.Input((6,), dtype="bool")
    model = keras.Model([x, padding], layers.Dense(2)(encoder(encoder(x), padding=padding)))
    why = "its layers stay in float: its calls differ in arguments, ranks or dtypes"
    assert reason(quantize_model(model), "block") == why


# Cases and blocks


class Summing(layers.Layer):
    """A residual block whose sum is a layer, with a convolution on each branch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left = layers.Conv2D(4, 3, padding="same", name="left")
        self.right = layers.Conv2D(4, 1, name="right")
        self.add = layers.Add(name="add")

    def build(self, input_shape):
        self.left.build(input_shape)
        self.right.build(input_shape)

    def call(self, inputs):
        return self.add([self.left(inputs), self.right(inputs)])


class Watching(CustomQDQInsertionCase):
    """Notes what it gets, and asks for the layers of these names."""

    def __init__(self, *names):
        self.names = names

    def case(self, keras_model, qspec):
        self.model = keras_model
        spec = QuantizationSpec()
        for name in self.names:
            spec.add(name)
        return spec


def two_blocks():
    inputs = keras.Input((8, 8, 3), name="image")
    x = Summing(name="block2")(Summing(name="block1")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(5, name="head")(x)))


def test_case_reaches_a_sum_in_a_block(tmp_path):
    model = quantize_model(two_blocks(), custom_qdq_cases=[ResidualConnectionQDQCase()])
    description = describe(calibrate(model, images(), verbose=0))
    for block in ("block1", "block2"):
        assert description[f"{block}/add"].reason == "ResidualConnectionQDQCase"
        assert [quantizer.what for quantizer in description[f"{block}/add"].quantizers] == ["input 0"]
    export_onnx(model, tmp_path / "m.onnx", verify_with=images())


def test_case_sees_open_blocks_as_nested_models_with_the_weights_of_the_model():
    model, case = two_blocks(), Watching("block1/add")
    assert "block1/quant_add" in names_of(quantize_model(model, custom_qdq_cases=[case]))
    assert isinstance(case.model.get_layer("block1"), keras.Model)
    assert_same_arrays(case.model(images()), model(images()))
    assert [layer.name for layer in case.model.layers] == [layer.name for layer in model.layers]


def test_case_sees_the_model_itself_where_no_block_is_open():
    model, case = two_blocks(), Watching("head")
    spec = QuantizationSpec()
    spec.add("Summing", is_keras_class=True, quantize_input=False)
    quantize_model(model, quantization_spec=spec, custom_qdq_cases=[case])
    assert case.model is model


def test_block_that_a_case_names_stays_closed():
    q_model = quantize_model(two_blocks(), custom_qdq_cases=[Watching("block1")])
    assert type(q_model.get_layer("quant_block1").layer) is Summing
    assert "block2/quant_left" in names_of(q_model)


def names_of(model):
    return [layer.name for layer in describe(model)]


class TwoInputs(keras.Model):
    """A subclassed model with two arguments, as the blocks of Flux."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(8, name="dense")

    def build(self, first_shape):
        self.dense.build(first_shape)
        self.built = True

    def call(self, first, second, training=None):
        return self.dense(first) + second


@pytest.mark.parametrize("by_name", [False, True])
def test_subclassed_model_that_takes_two_tensors_is_opened_in_a_functional_model(tmp_path, by_name):
    first, second = keras.Input((6, 8)), keras.Input((6, 8))
    part = TwoInputs(name="part")
    y = part(first, second=second) if by_name else part(first, second)
    model = randomize(keras.Model([first, second], layers.Dense(3)(y)))
    data = [np.random.default_rng(i).normal(size=(2, 6, 8)).astype("float32") for i in range(2)]
    quantized = calibrate(quantize_model(model, target="onnxruntime"), data, verbose=0)
    assert "part/quant_dense" in [layer.name for layer in describe(quantized) if layer.quantized]
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=data)
    quantized.save(tmp_path / "m.keras")
    assert_same_arrays(keras.saving.load_model(tmp_path / "m.keras")(data), quantized(data))
