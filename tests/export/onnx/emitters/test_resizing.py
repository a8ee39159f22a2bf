import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, export, layer_model, op_counts, run

from tensorflow_quantization.export import UnsupportedLayerError
from tensorflow_quantization.export.onnx import fallback

#: Some shrink one axis and stretch the other; some leave one as it is.
SIZES = ((4, 4), (13, 5), (8, 14), (16, 14))
INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area")


def skip_unknown(interpolation):
    """Where this backend of Keras does not have it."""
    try:
        ops.image.resize(np.zeros((1, 2, 2, 1), "float32"), (3, 3), interpolation=interpolation)
    except ValueError as error:
        pytest.skip(str(error))


def images(dtype, *shape):
    return np.random.default_rng(0).integers(0, 255, (2, *shape)).astype(dtype)


def tolerance(dtype):
    """Of whole numbers, one on the edge may be rounded either way."""
    return 1e-4 if dtype == "float32" else 5e-3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_resizing(tmp_path, size, interpolation, antialias, dtype):
    skip_unknown(interpolation)
    layer = layers.Resizing(*size, interpolation=interpolation, antialias=antialias)
    model = layer_model(layer, (8, 7, 3), dtype=dtype)
    assert_agrees(model, tmp_path / "m.onnx", [images(dtype, 8, 7, 3)], tolerance(dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("option", ["crop_to_aspect_ratio", "pad_to_aspect_ratio"])
@pytest.mark.parametrize("shape", [(8, 7, 3), (4, 11, 3)])
def test_proportions_that_are_kept(tmp_path, size, interpolation, option, shape):
    layer = layers.Resizing(*size, interpolation=interpolation, fill_value=50.0, **{option: True})
    assert_agrees(layer_model(layer, shape), tmp_path / "m.onnx", [images("float32", *shape)])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("batch", [False, True])
def test_the_operation(tmp_path, data_format, interpolation, batch):
    def resized(x):
        return ops.image.resize(x, (5, 9), interpolation=interpolation, data_format=data_format)

    shape = (7, 8, 3) if data_format == "channels_last" else (3, 7, 8)
    inputs = keras.Input(batch_shape=(2, *shape) if batch else shape)
    x = images("float32", *shape)
    assert_agrees(keras.Model(inputs, resized(inputs)), tmp_path / "m.onnx", [x if batch else x[0]])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.UpSampling1D(3), (4, 3)),
        (lambda: layers.UpSampling2D((2, 3)), (4, 5, 3)),
        (lambda: layers.UpSampling2D((1, 3), data_format="channels_first"), (3, 4, 5)),
        (lambda: layers.UpSampling3D(2), (3, 4, 5, 2)),
        *(
            (lambda i=i, f=f: layers.UpSampling2D((2, 3), interpolation=i, data_format=f), (4, 5, 3))
            for i in INTERPOLATIONS[1:5]
            for f in ("channels_last", "channels_first")
        ),
        (lambda: layers.UpSampling2D(2, interpolation="bilinear"), (4, 5, 3)),
    ],
)
def test_up_sampling(tmp_path, layer, shape):
    layer = layer()
    skip_unknown(getattr(layer, "interpolation", "nearest"))
    assert_agrees(layer_model(layer, shape), tmp_path / "m.onnx")


def test_a_matrix_for_each_axis_that_changes(tmp_path):
    for size, products in (((8, 7), 0), ((4, 7), 1), ((4, 4), 2)):
        layer = layers.Resizing(*size, interpolation="bicubic")
        counts = op_counts(assert_agrees(layer_model(layer, (8, 7, 3)), tmp_path / "m.onnx"))
        assert counts["MatMul"] == products


def test_channels_stay_first_between_convolutions(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.UpSampling2D(2, interpolation="bicubic")(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(x))
    assert op_counts(assert_agrees(model, tmp_path / "m.onnx"))["Transpose"] == 2  # in and out


def test_resizing_to_an_unknown_size_is_refused(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Resizing(None, None, name="resizing")(inputs))
    with pytest.raises(UnsupportedLayerError, match=r"resizing \(Resizing\): resizes to an unknown size"):
        export(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "options", [{"interpolation": "bicubic"}, {"antialias": True}, {"crop_to_aspect_ratio": True}], ids=str
)
def test_images_of_unknown_size_are_refused_where_that_matters(tmp_path, monkeypatch, options):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    model = layer_model(layers.Resizing(4, 4, **options), (None, None, 3))
    with pytest.raises(UnsupportedLayerError, match="build the model for images of one size"):
        export(model, tmp_path / "m.onnx")


def test_openvino_runs_it(tmp_path):
    openvino = pytest.importorskip("openvino")
    export(layer_model(layers.Resizing(13, 5, interpolation="bicubic"), (8, 7, 3)), tmp_path / "m.onnx")
    x = images("float32", 8, 7, 3)
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (actual,) = compiled([x]).values()
    np.testing.assert_allclose(actual, run(tmp_path / "m.onnx", [x])[0], rtol=1e-4)
