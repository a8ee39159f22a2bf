"""What becomes of quantized models in LiteRT."""

import keras
import numpy as np
import pytest
import small_models
from keras import layers
from tfmot_configs import ClipConfig, DenseConfig, PerAxisConfig, quantization, samples, train

if keras.backend.backend() != "tensorflow":
    pytest.skip("export_litert needs the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert, which runs .tflite files, is not installed")

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tensorflow_quantization import calibrate, export_litert
from tensorflow_quantization.export import ExportError

SINGLE_LAYERS = [
    (layers.ReLU, {}, (5,)),
    (layers.Softmax, {}, (5,)),
    (layers.Conv2D, {"filters": 4, "kernel_size": 2}, (4, 6, 1)),
    (layers.Conv2DTranspose, {"filters": 4, "kernel_size": 2}, (4, 6, 1)),
    (layers.Cropping1D, {}, (3, 6)),
    (layers.Cropping2D, {"cropping": 1}, (4, 6, 1)),
    (layers.Cropping3D, {}, (3, 4, 6, 1)),
    (layers.UpSampling2D, {"interpolation": "nearest"}, (4, 6, 1)),
    (layers.UpSampling2D, {"interpolation": "bilinear"}, (4, 6, 1)),
    (layers.ZeroPadding1D, {}, (3, 6)),
    (layers.ZeroPadding2D, {}, (4, 6, 1)),
    (layers.Dense, {"units": 2}, (5,)),
    (layers.Permute, {"dims": (2, 1)}, (10, 64)),
    (layers.Reshape, {"target_shape": (5, 1, 1)}, (5,)),
    (layers.AveragePooling1D, {"pool_size": 2}, (3, 6)),
    (layers.AveragePooling2D, {"pool_size": 2}, (4, 6, 1)),
    (layers.GlobalAveragePooling1D, {}, (3, 6)),
    (layers.GlobalAveragePooling2D, {}, (4, 6, 1)),
    (layers.GlobalMaxPooling1D, {}, (3, 6)),
    (layers.GlobalMaxPooling2D, {}, (4, 6, 1)),
    (layers.GlobalMaxPooling3D, {}, (3, 4, 6, 1)),
    (layers.MaxPooling2D, {"pool_size": 2}, (4, 6, 1)),
]


def float_tensors(path):
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    return [tensor["name"] for tensor in interpreter.get_tensor_details() if tensor["dtype"] == np.float32]


@pytest.mark.filterwarnings("ignore:.*never saw data")
@pytest.mark.parametrize(("cls", "arguments", "shape"), SINGLE_LAYERS)
def test_single_layer_has_float_tensors_at_the_ends_only(cls, arguments, shape, tmp_path):
    quantized = quantization.quantize_model(keras.Sequential([keras.Input(shape), cls(**arguments)]))
    assert len(float_tensors(export_litert(quantized, tmp_path / "model.tflite"))) == 2


def conv(**kwargs):
    return layers.Conv2D(2, 3, strides=2, **kwargs)


NETWORKS = {
    "conv": ((16, 16, 3), [conv]),
    "dense": ((5,), [lambda: layers.Dense(3)]),
    "conv_relu": ((6, 6, 3), [lambda: conv(activation="relu"), layers.ReLU]),
    "convs": ((20, 20, 3), [lambda: layers.Conv2D(4, 3, activation="relu"), *[lambda: conv(activation="relu")] * 2]),
    "conv_bn_relu": ((6, 6, 3), [conv, layers.BatchNormalization, layers.ReLU]),
    "depthwise_bn_relu": (
        (6, 6, 3),
        [lambda: layers.DepthwiseConv2D(3, strides=2), layers.BatchNormalization, layers.ReLU],
    ),
    "separable2d": (
        (12, 12, 3),
        [lambda: layers.SeparableConv2D(5, 3, strides=2), layers.BatchNormalization, layers.ReLU],
    ),
    "separable1d_bn": ((8, 3), [lambda: layers.SeparableConv1D(5, 3, strides=2), layers.BatchNormalization]),
    "separable1d_bn_relu": (
        (8, 3),
        [lambda: layers.SeparableConv1D(5, 3, strides=2), layers.BatchNormalization, layers.ReLU],
    ),
    "separable1d_twice": (
        (10, 3),
        [*[lambda: layers.SeparableConv1D(5, 3, strides=2), layers.BatchNormalization] * 2, layers.ReLU],
    ),
    "upsampling": ((8, 8, 3), [lambda: layers.UpSampling2D((3, 4))]),
    "transposed": ((8, 8, 3), [lambda: layers.Conv2DTranspose(2, 3, strides=2)]),
}


#: In each run of the tests; the others take as long and show less.
FAST = {"conv_bn_relu", "separable1d_twice"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_trained_network_and_its_file_agree(name, tmp_path):
    shape, parts = NETWORKS[name]
    model = small_models.randomize(keras.Sequential([keras.Input(shape), *[part() for part in parts]]))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    y = np.random.default_rng(1).normal(size=(8, *model.output_shape[1:])).astype("float32")
    quantized = train(quantization.quantize_model(model), x, y, "mse", epochs=3)
    export_litert(quantized, tmp_path / "model.tflite", verify_with=x)


def test_accuracy_stays_from_float_to_file(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 256)
    x = (np.eye(3)[labels] @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(256, 12))).astype("float32")
    model = keras.Sequential([keras.Input((12,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    train(model, x, labels, loss, epochs=8)
    quantized = train(quantization.quantize_model(model), x, labels, loss, epochs=2)
    interpreter = Interpreter(str(export_litert(quantized, tmp_path / "model.tflite")))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    found = [
        np.mean(scores.argmax(1) == labels)
        for scores in (model.predict(x, verbose=0), quantized.predict(x, verbose=0), outputs)
    ]
    assert min(found) > 0.9 and max(found) - min(found) < 0.03


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("MobileNet", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("MobileNetV2", "InceptionV3")),
    ],
)
def test_network_of_keras_trains_and_is_written(name, tmp_path):
    size = 75 if name == "InceptionV3" else 32
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    quantized = train(quantization.quantize_model(model), x, np.eye(10, dtype="float32")[:2])
    assert export_litert(quantized, tmp_path / "model.tflite").exists()


def configured(config):
    layer = quantization.quantize_annotate_layer(layers.Dense(4, name="dense"), config)
    return quantization.quantize_apply(keras.Sequential([keras.Input((10,)), layer]))


def test_layer_with_a_config_is_written(tmp_path):
    x, _ = samples()
    quantized = calibrate(configured(PerAxisConfig()), x, verbose=0)
    assert len(float_tensors(export_litert(quantized, tmp_path / "model.tflite", verify_with=x))) == 2


def test_weights_with_one_scale_are_refused(tmp_path):
    x, _ = samples()
    with pytest.raises(ExportError, match=r"quant_dense: kernel per tensor\n.*per_axis=True"):
        export_litert(calibrate(configured(DenseConfig()), x, verbose=0), tmp_path / "model.tflite")


def test_a_training_with_one_scale_goes_on_with_a_scale_for_each_channel(tmp_path):
    """The way out in docs/tfmot.md."""
    x, _ = samples()
    before = calibrate(configured(DenseConfig()), x, verbose=0)
    before.layers[-1].layer.kernel.assign(2.0 * before.layers[-1].layer.kernel)
    quantized = configured(PerAxisConfig())
    quantized.set_weights(before.get_weights())
    np.testing.assert_allclose(quantized.predict(x, verbose=0), before.predict(x, verbose=0), atol=0.1)
    export_litert(quantized, tmp_path / "model.tflite", verify_with=x)


def test_quantizer_of_the_user_is_refused(tmp_path):
    x, _ = samples()
    with pytest.raises(ExportError, match="quant_dense: has a Quantizer of your own, ClipQuantizer"):
        export_litert(calibrate(configured(ClipConfig()), x, verbose=0), tmp_path / "model.tflite")
