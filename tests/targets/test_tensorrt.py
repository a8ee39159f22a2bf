"""FP8 for TensorRT: which layers, the same numbers in Keras and in the file, and what the builder makes of it."""

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers
from small_models import randomize

from tensorflow_quantization import (
    QuantizationSpec,
    calibrate,
    check_onnx,
    describe,
    export_onnx,
    quantize_model,
    runtime_report,
)
from tensorflow_quantization.export import ExportError, OpsetError

FP8 = "float8_e4m3fn"


@pytest.fixture(scope="module")
def network():
    """Each kind of layer that FP8 is for, a pool and a transposed convolution, which stay in float, and attention."""
    inputs = keras.Input((8, 8, 4), name="image")
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(stem)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="add")([stem, x]))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2DTranspose(4, 2, name="up")(x)
    x = layers.Reshape((25, 4), name="tokens")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="dense")(layers.Flatten(name="flatten")(x))))


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("float32")


@pytest.fixture(scope="module")
def quantized(network, data):
    return calibrate(quantize_model(network, target="tensorrt", dtype=FP8), data, method="minmax", verbose=0)


@pytest.fixture(scope="module")
def path(quantized, data, tmp_path_factory):
    return export_onnx(quantized, tmp_path_factory.mktemp("fp8") / "m.onnx", verify_with=data)


def test_products_convolutions_and_shortcuts_are_in_fp8(quantized):
    found = describe(quantized)
    names = [layer.name for layer in found if layer.quantized]
    assert names == [f"quant_{name}" for name in ("stem", "depthwise", "add", "attention", "dense")]
    assert {quantizer.dtype for layer in found for quantizer in layer.quantizers} == {FP8}
    assert str(found["dense"].quantizers[1]) == "kernel float8_e4m3fn per channel (axis -1)"


def test_the_scale_is_the_greatest_magnitude_over_448(quantized, data):
    (quantizer,) = quantized.get_layer("quant_stem").activation_quantizers
    assert float(quantizer.scale()) == pytest.approx(np.abs(data).max() / 448)


def test_onnx_runtime_computes_what_keras_does(quantized, path, data):
    onnxruntime = pytest.importorskip("onnxruntime")
    found = onnxruntime.InferenceSession(path).run(None, {"image": data})[0]
    np.testing.assert_allclose(found, quantized.predict(data, verbose=0), atol=2e-3)
    assert check_onnx(path, "tensorrt").ok


def test_weights_and_zero_points_are_in_fp8_and_biases_are_not(path):
    graph = ir.load(path).graph
    quantizers = [node for node in graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {node.inputs[2].dtype for node in quantizers} == {ir.DataType.FLOAT8E4M3FN}
    weights = [node.inputs[0] for node in quantizers if node.inputs[0].const_value is not None]
    assert len(weights) == 7 and {weight.dtype for weight in weights} == {ir.DataType.FLOAT8E4M3FN}
    assert all(node.inputs[2].producer() is None for node in graph if node.op_type == "Conv" and len(node.inputs) > 2)


def test_biases_are_not_rounded(quantized):
    dense = quantized.get_layer("quant_dense")
    _, bias = dense.layer.get_weights()
    outputs = dense(np.zeros((1, 100), "float32"))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(outputs)[0], bias)


@pytest.mark.slow
def test_it_trains_and_survives_saving(network, data, tmp_path):
    model = quantize_model(network, target="tensorrt", dtype=FP8)
    model.compile("sgd", "mse")
    before, _ = model.get_layer("quant_stem").layer.get_weights()
    model.fit(data, np.ones((8, 5), "float32"), verbose=0)
    after, _ = model.get_layer("quant_stem").layer.get_weights()
    assert (after != before).any(axis=(0, 1, 2)).all()
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(data, verbose=0), model.predict(data, verbose=0))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mse", "auto"])
def test_methods_of_calibration(network, data, method):
    model = calibrate(quantize_model(network, target="tensorrt", dtype=FP8), data, method=method, verbose=0)
    expected, found = network.predict(data, verbose=0), model.predict(data, verbose=0)
    assert np.square(found - expected).sum() < 0.02 * np.square(expected).sum()


def test_entropy_is_for_integers(quantized, data):
    with pytest.raises(ValueError, match="'entropy' compares levels of equal distance, and FP8 has others"):
        calibrate(quantized, data, method="entropy")


@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino", "litert"])
def test_other_targets_have_no_fp8(network, target):
    with pytest.raises(ValueError, match=r"needs a runtime that computes in FP8: target='tensorrt'"):
        quantize_model(network, target=target, dtype=FP8)


def test_wrong_arguments_are_named(network):
    with pytest.raises(ValueError, match=r"dtype must be one of 'float8_e4m3fn', or None.*'float8'. Did you mean"):
        quantize_model(network, target="tensorrt", dtype="float8")
    with pytest.raises(ValueError, match="weight_bits=4 is for integers, and float8_e4m3fn has 8 bits"):
        quantize_model(network, target="tensorrt", dtype=FP8, weight_bits=4)
    spec = QuantizationSpec()
    spec.add("stem", weight_bits=4)
    with pytest.raises(ValueError, match="'stem' has weight_bits=4 for layer 'stem', and FP8 has 8 bits"):
        quantize_model(network, quantization_spec=spec, target="tensorrt", dtype=FP8)


def test_files_that_cannot_be_are_refused_before_any_work(quantized, tmp_path):
    with pytest.raises(ExportError, match=r"quantized to FP8, in which onnxruntime does not compute: quant_stem"):
        export_onnx(quantized, tmp_path / "m.onnx", target="onnxruntime")
    with pytest.raises(OpsetError, match="FP8 needs ONNX opset 19"):
        export_onnx(quantized, tmp_path / "m.onnx", opset=17)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_builder_says_fp8(path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    report = runtime_report(path, "tensorrt", compute_capability="8.9")
    floats = [node.name for node in report.multiplying if node.precision != "FP8"]
    assert floats == ["up/ConvTranspose"]
    with pytest.raises(ValueError, match=r"8\.6 have no kernels for FP8, which needs 8\.9"):
        runtime_report(path, "tensorrt", compute_capability="8.6")
