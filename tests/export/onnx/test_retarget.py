"""A model quantized for one runtime, exported for another."""

import warnings

import faulty_models
import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx_models import run
from small_models import images, randomize, residual

from tensorflow_quantization import calibrate, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.export import ExportError


def chain():
    inputs = keras.Input((8, 8, 3), name="image")
    x = inputs
    for _ in range(3):
        x = layers.ReLU()(layers.Conv2D(8, 3, padding="same")(x))
    return randomize(keras.Model(inputs, layers.Conv2D(4, 1)(x)))


def quantized(model, target):
    return calibrate(quantize_model(model, target=target), images()[0], verbose=0)


def test_tensorrt_integers_are_the_same_numbers_for_onnxruntime_and_run_in_integers(tmp_path):
    model = quantized(chain(), "tensorrt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the last convolution has no quantizer behind it
        export_onnx(model, tmp_path / "ort.onnx", target="onnxruntime", verify_with=images()[0])
    export_onnx(model, tmp_path / "trt.onnx")
    x = [images()[0]]
    np.testing.assert_allclose(
        run(tmp_path / "ort.onnx", x, optimize=False)[0],
        run(tmp_path / "trt.onnx", x, optimize=False)[0],
        rtol=1e-5,
        atol=1e-5,
    )
    shares = [runtime_report(tmp_path / name).integer_share for name in ("ort.onnx", "trt.onnx")]
    assert shares[0] > 0.9
    assert shares[1] < 0.5


def test_missing_quantizers_are_named(tmp_path):
    with pytest.warns(UserWarning, match="quant_conv/Conv.*without a quantizer") as found:
        export_onnx(quantized(residual(), "tensorrt"), tmp_path / "m.onnx", target="onnxruntime")
    assert {w.filename for w in found if "without a quantizer" in str(w.message)} == {__file__}


def test_integers_that_the_runtime_rejects_are_an_error_and_leave_no_file(tmp_path):
    with pytest.raises(ExportError, match="no exact form for tensorrt"):
        export_onnx(quantized(residual(), "onnxruntime"), tmp_path / "m.onnx", target="tensorrt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("target", "message"), [("litert", "export_litert"), ("openvin", "Did you mean 'openvino'")])
def test_target_without_onnx_files(tmp_path, target, message):
    with pytest.raises(ExportError, match=message):
        export_onnx(residual(), tmp_path / "m.onnx", target=target)


def test_equal_quantizers_that_become_one_are_verified(tmp_path):
    """Two layers without a shared quantizer read a tensor: ONNX Runtime's files have one for both."""
    model, data = faulty_models.dense(), faulty_models.signals()
    q_model = calibrate(quantize_model(model), data, verbose=0)
    path = export_onnx(q_model, tmp_path / "m.onnx", target="onnxruntime", verify_with=data)
    names = [node.name for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"]
    assert sum("left" in name or "right" in name for name in names) == 1
