import keras
import numpy as np
import pytest
from keras import layers, ops
from litert_files import assert_agrees, functional, kinds, quantized
from small_models import data_for, randomize

from tensorflow_quantization.export.litert import export_litert


def _images(*steps):
    return functional(layers.Conv2D(4, 3), *steps, layers.Conv2D(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        lambda x: ops.hard_sigmoid(x),
        layers.Activation("hard_sigmoid"),
        lambda x: layers.Conv2D(4, 1, activation="hard_sigmoid")(x),
        lambda x: layers.Maximum()([layers.Conv2D(4, 1)(x), ops.hard_sigmoid(x)]),
        lambda x: layers.Concatenate()([layers.Conv2D(4, 1)(x), ops.hard_sigmoid(x)]),
        lambda x: x / 127.5 - 1,
        lambda x: -x,
        lambda x: x / np.float32([1.0, 20.0, 0.3, 4.0]),
        lambda x: layers.Average()([x, layers.Conv2D(4, 1)(x)]),
    ],
)
def test_integers_in_each_operator(tmp_path, step):
    assert_agrees(quantized(_images(step)), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize(
    "step",
    [
        lambda x: x / (1.0 + ops.relu(layers.Conv2D(4, 1)(x))),
        lambda x: 1.0 / (1.0 + ops.relu(x)),
        lambda x: layers.Average()([x, layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1)(x)]),
    ],
)
def test_what_has_no_integer_operator_is_computed_in_float(tmp_path, step):
    model = quantized(_images(step))
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))


def _doubled(x):
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=-2)


@pytest.mark.parametrize("double", [layers.UpSampling2D(), _doubled], ids=["upsampling", "repeat"])
def test_a_convolution_after_two_enlargements(tmp_path, double):
    model = quantized(_images(double, layers.Conv2D(4, 3), double))
    assert_agrees(model, tmp_path / "m.tflite")


@pytest.mark.parametrize(
    "find",
    [
        lambda x: ops.argmax(x, axis=-1),
        lambda x: ops.argmin(x, axis=1, keepdims=True),
        lambda x: ops.argmax(x, keepdims=True),
    ],
)
def test_positions_are_found_by_operators_of_litert(tmp_path, find):
    model = quantized(functional(layers.Conv2D(4, 3), find))
    data = data_for(model)[:1]  # without an axis, the position is one in the whole batch
    path = export_litert(model, tmp_path / "m.tflite", verify_with=data)
    assert {"ARG_MAX", "ARG_MIN"} & set(kinds(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "encode",
    [
        lambda x: ops.one_hot(x, 5),
        lambda x: ops.one_hot(x, 5, axis=1),
        layers.CategoryEncoding(num_tokens=5, output_mode="multi_hot"),
        layers.CategoryEncoding(num_tokens=5, output_mode="count"),
    ],
)
def test_numbers_of_classes(tmp_path, encode):
    inputs = keras.Input((3,), dtype="int32")
    model = randomize(keras.Model(inputs, layers.Dense(3)(encode(inputs))))
    x = np.int32([[0, 1, 1], [4, 3, 0], [2, 2, 2]])
    model = quantized(model, x)
    path = export_litert(model, tmp_path / "m.tflite", verify_with=x)
    assert "ONE_HOT" not in kinds(path)


def test_one_number_of_a_class(tmp_path):
    inputs = keras.Input((1,), dtype="int32")
    encoded = layers.CategoryEncoding(num_tokens=5, output_mode="one_hot")(inputs)
    x = np.int32([[0], [4], [2]])
    model = quantized(randomize(keras.Model(inputs, layers.Dense(3)(encoded))), x)
    assert_agrees(model, tmp_path / "m.tflite", x)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("scale", [lambda x: x / 127.5 - 1.0, lambda x: 1.0 - x / 255])
def test_a_quotient_of_integers_is_computed_in_floats(tmp_path, scale):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), "uint8")
    model = quantized(randomize(keras.Model(inputs, layers.Conv2D(4, 3)(scale(inputs)))), x)
    export_litert(model, tmp_path / "m.tflite", verify_with=x)
