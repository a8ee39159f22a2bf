import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, export, layer_model
from small_models import randomize

from tensorflow_quantization.export import UnsupportedLayerError
from tensorflow_quantization.export.onnx import fallback


@pytest.mark.parametrize("steps", [3, None])
@pytest.mark.parametrize(
    ("inner", "shape"),
    [
        (lambda: layers.Dense(5, activation="relu"), (4,)),
        (lambda: layers.Conv2D(4, 3, padding="same"), (6, 5, 3)),
        (lambda: layers.Flatten(), (4, 3)),
        (lambda: layers.LSTM(3), (4, 3)),
        (lambda: keras.Sequential([keras.Input((6, 5, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)]),
         (6, 5, 3)),
    ],
)  # fmt: skip
def test_time_distributed(tmp_path, inner, shape, steps):
    x = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype("float32")
    model = layer_model(layers.TimeDistributed(inner()), (steps, *shape))
    assert_agrees(model, tmp_path / "m.onnx", [x])


def test_steps_of_all_samples_are_no_batch(tmp_path):
    """ONNX Runtime writes tensors whose axes have the same names into one buffer: of (2, 4) and of (2 * 3, 4)."""
    inputs = keras.Input((3, 4))
    x = layers.Dense(4, "tanh")(layers.Dense(4, "tanh")(layers.GlobalAveragePooling1D()(inputs)))
    x = layers.Add()([inputs, layers.RepeatVector(3)(x)])
    inner = keras.Sequential([keras.Input((4,)), *(layers.Dense(4, a) for a in ("tanh", "sigmoid", "tanh"))])
    assert_agrees(randomize(keras.Model(inputs, layers.TimeDistributed(inner)(x))), tmp_path / "m.onnx")


def test_an_output_of_all_steps_is_no_batch_for_others(tmp_path):
    inputs = keras.Input((6, 4))
    steps = layers.TimeDistributed(layers.Dense(4, "tanh"))(inputs)
    y = ops.reshape(steps, (-1, 4))
    others = [ops.sum(ops.tanh(ops.sigmoid(y)), axis=1), ops.sigmoid(ops.tanh(ops.sigmoid(steps[:, 0])))]
    assert_agrees(randomize(keras.Model(inputs, [y, *others])), tmp_path / "m.onnx", [np.ones((3, 6, 4), "float32")])


def test_frames_for_a_recurrent_layer(tmp_path):
    inputs = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    assert_agrees(randomize(keras.Model(inputs, layers.GRU(3)(x))), tmp_path / "m.onnx")


def test_a_mask_for_the_inner_layer(tmp_path, monkeypatch):
    inputs = keras.Input((3, 4, 2))
    mask = keras.Input((3, 4), dtype="bool")
    y = layers.TimeDistributed(layers.LSTM(2))(inputs, mask=mask)
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(UnsupportedLayerError, match="mask"):
        export(keras.Model([inputs, mask], y), tmp_path / "m.onnx")


@pytest.mark.parametrize("inner", [lambda: layers.Dense(4), lambda: layers.Conv2D(4, 3)])
def test_spectral_normalization(tmp_path, inner):
    layer = layers.SpectralNormalization(inner())
    assert_agrees(layer_model(layer, (6, 6, 3)), tmp_path / "m.onnx")


def test_pipeline(tmp_path):
    layer = layers.Pipeline([layers.Rescaling(1 / 255), layers.RandomFlip(), layers.CenterCrop(4, 3)])
    assert_agrees(layer_model(layer, (6, 6, 3)), tmp_path / "m.onnx")
