import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx_models import assert_agrees, export, layer_model, op_counts

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Rescaling(1 / 255),
        lambda: layers.Rescaling(1 / 127.5, offset=-1),
        lambda: layers.Rescaling([0.5, 1.0, 2.0], offset=[1.0, 2.0, 3.0]),
        lambda: layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        lambda: layers.Normalization(mean=0.5, variance=4.0),
        lambda: layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], invert=True),
        lambda: layers.CenterCrop(4, 5),
        lambda: layers.AutoContrast((0, 255)),
        lambda: layers.AutoContrast((-20, 300)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_layer(tmp_path, layer, dtype):
    model = layer_model(layer(), (8, 7, 3), dtype=dtype)
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 7, 3)).astype(dtype)
    # Of whole numbers, one on the edge may be rounded either way.
    assert_agrees(model, tmp_path / "m.onnx", [x], tolerance=1e-4 if dtype == "float32" else 5e-3)


def test_a_channel_without_contrast_stays(tmp_path):
    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype("float32")
    x[0, ..., 1], x[1, ..., 2] = 0.5, 0.0
    assert_agrees(layer_model(layers.AutoContrast((0, 1)), (4, 4, 3)), tmp_path / "m.onnx", [x])


def test_adapted_normalization(tmp_path):
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (64, 5)))
    inputs = keras.Input((5,))
    assert_agrees(keras.Model(inputs, layer(inputs)), tmp_path / "m.onnx")


def test_preprocessing_of_an_image_stays_behind_its_only_transpose(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(layers.Rescaling(1 / 255)(inputs))
    proto = assert_agrees(keras.Model(inputs, layers.Conv2D(4, 3)(x)), tmp_path / "m.onnx")
    assert proto.graph.node[0].op_type == "Transpose"
    assert op_counts(proto)["Transpose"] == 2  # in and out


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.5),
        layers.SpatialDropout2D(0.5),
        layers.GaussianNoise(1.0),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5),
        layers.ActivityRegularization(0.1),
        layers.Identity(),
        layers.RandomFlip(),
        layers.RandomRotation(0.3),
        layers.RandomZoom(0.3),
        layers.RandomTranslation(0.3, 0.3),
        layers.RandomContrast(0.5),
        layers.RandomBrightness(0.5),
        layers.RandomShear([0, 0.5], [0, 0.5]),
        layers.RandomErasing(),
        layers.RandomGaussianBlur(),
    ],
)
def test_what_only_training_does_vanishes(tmp_path, layer):
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(type(layer).from_config(layer.get_config())(inputs))
    proto = assert_agrees(keras.Model(inputs, x), tmp_path / "m.onnx")
    assert op_counts(proto) == {"Transpose": 1, "GlobalAveragePool": 1, "Reshape": 1}


def test_a_model_that_does_nothing_at_inference(tmp_path):
    inputs = keras.Input((4,), name="x")
    proto = export(keras.Model(inputs, layers.Dropout(0.5, name="drop")(inputs)), tmp_path / "m.onnx")
    assert [n.op_type for n in proto.graph.node] == ["Identity"]
    assert (proto.graph.input[0].name, proto.graph.output[0].name) == ("x", "drop")


def test_a_factor_of_the_image_is_in_the_quantizer_behind_it(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(inputs)))
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    quantized = calibrate(quantize_model(model, target="onnxruntime"), x, verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)
    assert not op_counts(onnx.load(path))["Mul"]
    assert check_onnx(path, target="onnxruntime").ok
