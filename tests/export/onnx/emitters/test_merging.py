import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, layer_model, op_counts
from small_models import randomize

MERGES = [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]


@pytest.mark.parametrize("layer", MERGES)
@pytest.mark.parametrize("shapes", [[(4, 5)] * 2, [(4, 5), (1, 5)], [(4, 5), (5,)], [(3, 4, 5), (5,)]])
def test_merge(tmp_path, layer, shapes):
    assert_agrees(layer_model(layer(), *shapes), tmp_path / "m.onnx")


@pytest.mark.parametrize("layer", [layers.Add, layers.Multiply, layers.Average, layers.Maximum])
def test_merge_of_three(tmp_path, layer):
    assert_agrees(layer_model(layer(), (4, 5), (4, 5), (4, 5)), tmp_path / "m.onnx")


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_concatenate_between_convolutions(tmp_path, axis):
    inputs = keras.Input((7, 7, 4))
    parts = [layers.Conv2D(4, 3, padding="same")(inputs), layers.MaxPooling2D(1)(inputs), inputs]
    x = layers.Conv2D(2, 3)(layers.Concatenate(axis=axis)(parts))
    assert op_counts(assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx"))["Transpose"] <= 2


def test_concatenate_of_flattened_images(tmp_path):
    inputs = keras.Input((5, 5, 3))
    parts = [layers.Flatten()(layers.Conv2D(n, 3)(inputs)) for n in (2, 4)]
    x = layers.Dense(3)(layers.Concatenate()(parts))
    assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx")


def test_sum_of_a_flattened_image_and_a_vector(tmp_path):
    image, vector = keras.Input((5, 5, 3)), keras.Input((36,))
    x = layers.Add()([layers.Flatten()(layers.Conv2D(4, 3)(image)), vector])
    assert_agrees(randomize(keras.Model([image, vector], layers.Dense(3)(x))), tmp_path / "m.onnx")


def test_squeeze_and_excitation_adds_no_transpose(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(4, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="swish")(gate))
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, gate]))
    counts = op_counts(assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx"))
    assert counts["Transpose"] == 1
    assert counts["Reshape"] == 1


def test_gate_made_by_dense_layers(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Conv2D(2, 3)(layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)]))
    counts = op_counts(assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx"))
    assert counts["Transpose"] == 2  # in and out


@pytest.mark.parametrize("axes", [1, 2, (1, 2), (2, 1), -1])
def test_dot(tmp_path, axes):
    assert_agrees(layer_model(layers.Dot(axes=axes), (4, 4), (4, 4)), tmp_path / "m.onnx")


@pytest.mark.parametrize(("shapes", "axes"), [([(4,), (4,)], 1), ([(4,), (4, 3)], 1), ([(3, 4), (4,)], (2, 1))])
def test_dot_of_vectors(tmp_path, shapes, axes):
    assert_agrees(layer_model(layers.Dot(axes=axes), *shapes), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y / 3.0,
        lambda x, y: x / (ops.abs(y) + 1),
        lambda x, y: 1.0 - x + 2 * y,
        lambda x, y: (ops.abs(x) + 1) ** 2.5 - y,
        lambda x, y: ops.maximum(x, y) - ops.minimum(x, 0.5),
        lambda x, y: ops.add(x, np.arange(4.0)) + y,
    ],
)
def test_arithmetic(tmp_path, function):
    x, y = keras.Input((3, 4)), keras.Input((3, 4))
    assert_agrees(keras.Model([x, y], function(x, y)), tmp_path / "m.onnx")


def test_operands_of_lower_rank_and_other_layout(tmp_path):
    image, table = keras.Input((6, 5, 3)), keras.Input(batch_shape=(4, 5, 3))
    x = layers.Conv2D(3, 3, padding="same")(image)
    scaled = x[:, :4] * table + np.arange(3.0)
    model = randomize(keras.Model([image, table], layers.Conv2D(2, 3)(scaled)))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 6, 5, 3)).astype("float32"), rng.normal(size=(4, 5, 3)).astype("float32")]
    assert_agrees(model, tmp_path / "m.onnx", arrays)


def test_a_constant_and_a_tensor_of_unknown_sizes(tmp_path):
    x = keras.Input((None, None, 3))
    mask = np.tril(np.ones((4, 4), bool))[..., None]
    model = keras.Model(x, ops.softmax(ops.where(ops.logical_and(x > 0, mask), x, -30.0)))
    assert_agrees(model, tmp_path / "m.onnx", [np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")])


def test_integers_and_floats_meet(tmp_path):
    x, y = keras.Input((4,), dtype="int32"), keras.Input((4,))
    assert_agrees(keras.Model([x, y], [x + y, x * 2, x / 2, x > y]), tmp_path / "m.onnx")
