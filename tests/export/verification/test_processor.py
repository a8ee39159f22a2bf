"""Runtimes saturate on processors without VNNI, and the error of verification says so."""

import pytest
from onnx_models import export

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export import VerificationError
from tensorflow_quantization.export.verification import processor


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_seven_bits_never_saturate(runtime):
    pytest.importorskip(runtime)
    assert not processor.saturates(runtime, weight_bits=processor.SAFE_WEIGHT_BITS)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_probe_asks_for_sums_that_16_bits_do_not_hold(runtime):
    products = 2 * 255 * (2 ** (processor.SAFE_WEIGHT_BITS - 1) - 1)
    assert products <= 32767 < 2 * 255 * 127


@pytest.mark.parametrize("saturates", [False, True])
def test_error_of_a_processor_that_saturates_says_what_to_do(tmp_path, residual, images, monkeypatch, saturates):
    pytest.importorskip("openvino")
    model = calibrate(quantize_model(residual, target="openvino", weight_bits=7), images[0], verbose=0)
    monkeypatch.setattr("tensorflow_quantization.export.verification.onnx.saturates", lambda runtime: saturates)
    monkeypatch.setattr("tensorflow_quantization.export.verification.onnx._deviation", lambda *arrays: float("nan"))
    with pytest.raises(VerificationError) as error:
        export(model, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")
    assert ("weight_bits=7" in str(error.value)) is saturates
