import keras
import numpy as np
import pytest
import run_time_sizes as networks
from keras import Input, Model, layers, ops
from onnx_models import assert_agrees, op_counts
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, export_litert, export_onnx, quantize_model
from tensorflow_quantization.export import UnsupportedLayerError
from tensorflow_quantization.export.onnx import fallback

NETWORKS = [networks.fpn, networks.fpn_of_layers, networks.vit]
#: Calibrated sizes, and others.
SIZES = [(3, 32, 40), (2, 44, 52), (1, 37, 29)]


def images(batch, height, width):
    return np.random.default_rng(0).normal(size=(batch, height, width, 3)).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_any_size(tmp_path, network):
    model = network()
    for size in SIZES:
        counts = op_counts(assert_agrees(model, tmp_path / "m.onnx", [images(*size)]))
        export_onnx(model, tmp_path / "m.onnx", verify_with=images(*size), verify_runtime="openvino")
    assert counts["Shape"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_quantized_networks_of_any_size(tmp_path, network, target):
    model = quantize_model(network(), target=target, weight_bits=EXACT_WEIGHT_BITS)
    calibrate(model, images(4, 32, 40), verbose=0)
    runtime = "openvino" if target == "openvino" and network is not networks.vit else "onnxruntime"
    for size in SIZES:
        export_onnx(model, tmp_path / "m.onnx", verify_with=images(*size), verify_runtime=runtime)


@pytest.mark.slow
@pytest.mark.parametrize("network", [networks.fpn, networks.vit])
def test_layers_in_blocks_that_read_sizes_are_quantized_and_saved(tmp_path, network):
    model = quantize_model(network(), target="onnxruntime")
    x = images(2, 32, 40)
    calibrate(model, x, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    block = "merge_0" if network is networks.fpn else "heads"
    assert any(layer.name.startswith("quant_") for layer in loaded.get_layer(block).layers)
    expected, actual = (keras.tree.flatten(m.predict(images(3, 44, 36), verbose=0)) for m in (model, loaded))
    assert all(np.array_equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="export_litert needs TensorFlow")
@pytest.mark.parametrize("network", [networks.fpn, networks.vit])
def test_networks_of_any_size_in_litert(tmp_path, network):
    model = quantize_model(network(), target="litert")
    calibrate(model, images(4, 32, 40), verbose=0)
    for size in SIZES[:2]:
        export_litert(model, tmp_path / "m.tflite", verify_with=images(*size))


def custom(function):
    class Custom(layers.Layer):
        def call(self, inputs):
            return function(inputs)

        def compute_output_spec(self, inputs):
            return keras.KerasTensor((None,) * len(inputs.shape))

    inputs = Input((None, None, 4))
    return Model(inputs, Custom(name="custom")(inputs))


def padded(x):
    """Padded to whole windows."""
    rows, columns = (-ops.shape(x)[axis] % 4 for axis in (1, 2))
    x = ops.concatenate([x, ops.zeros((ops.shape(x)[0], rows, ops.shape(x)[2], 4))], axis=1)
    x = ops.concatenate([x, ops.zeros((ops.shape(x)[0], ops.shape(x)[1], columns, 4))], axis=2)
    x = ops.reshape(x, (-1, ops.shape(x)[1] // 4, 4, ops.shape(x)[2] // 4, 4, 4))
    return ops.transpose(x, (0, 1, 3, 2, 4, 5))


@pytest.mark.parametrize(
    "function",
    [
        padded,
        lambda x: ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] * ops.shape(x)[2], 4)),
        lambda x: ops.broadcast_to(ops.mean(x, axis=(1, 2), keepdims=True), ops.shape(x)),
        lambda x: ops.tile(ops.mean(x, axis=0, keepdims=True), (ops.shape(x)[0], 1, 1, 1)),
        lambda x: x[:, ops.shape(x)[1] // 3 : ops.shape(x)[1] - 1, -1],
        lambda x: x[:, ops.shape(x)[1] // 2],
        lambda x: x + ops.cast(ops.arange(ops.shape(x)[2]), "float32")[:, None],
        lambda x: ops.sum(x, axis=1) / ops.shape(x)[1],
        lambda x: ops.image.resize(x, (ops.shape(x)[1] * 2, ops.shape(x)[2] + 3), "bilinear"),
    ],
)
@pytest.mark.parametrize("shape", [(1, 6, 9, 4), (3, 11, 5, 4)])
def test_operations_with_sizes(tmp_path, function, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    assert_agrees(custom(function), tmp_path / "m.onnx", [x])


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos3"])
def test_interpolations_that_need_the_size(tmp_path, interpolation):
    model = custom(lambda x: ops.image.resize(x, (ops.shape(x)[1] * 2, 8), interpolation))
    with pytest.raises(UnsupportedLayerError, match=rf"(?s)custom/resize.*interpolation='{interpolation}'"):
        export_onnx(model, tmp_path / "m.onnx")


def test_what_has_no_form_names_the_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    model = custom(lambda x: ops.roll(x, ops.shape(x)[1] // 2, axis=1))
    with pytest.raises(UnsupportedLayerError, match=r"(?s)custom \(Custom\).*its Roll needs a size"):
        export_onnx(model, tmp_path / "m.onnx")
