"""Runtimes saturate on processors without VNNI, and the error of verification says so."""

import warnings

import keras
import numpy as np
import pytest
from onnx import numpy_helper
from onnx_models import export

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export import VerificationError
from tensorflow_quantization.export.verification import processor


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_seven_bits_never_saturate(runtime):
    pytest.importorskip(runtime)
    assert not processor.saturates(runtime, weight_bits=processor.SAFE_WEIGHT_BITS)


@pytest.mark.parametrize(("largest", "fits"), [(63, True), (127, False)], ids=["7 bits", "8 bits"])
def test_two_products_of_the_probe_fit_into_16_bits_only_with_fewer_bits(largest, fits):
    model = processor._convolution(largest)
    (weight,) = (numpy_helper.to_array(x) for x in model.graph.initializer if x.name == "weight")
    assert (2 * 255 * int(weight.max()) <= np.iinfo(np.int16).max) is fits


@pytest.mark.parametrize(("bits", "most"), [(8, 1), (7, 0)])
def test_file_that_saturates_with_default_options_is_verified_with_a_warning(tmp_path, bits, most):
    inputs = keras.Input((16,))
    model = keras.Model(inputs, keras.layers.Dense(4, kernel_initializer="ones", name="sums")(inputs))
    quantized = quantize_model(model, target="onnxruntime", weight_bits=bits)
    ones = np.ones((4, 16), np.float32)
    calibrate(quantized, ones, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export(quantized, tmp_path / "m.onnx", verify_with=ones)
    told = [str(warning.message) for warning in caught if "saturates" in str(warning.message)]
    assert len(told) == (most if processor.saturates("onnxruntime") else 0)
    assert all("weight_bits=7" in text for text in told)


@pytest.mark.parametrize("saturates", [False, True])
def test_error_of_a_processor_that_saturates_says_what_to_do(tmp_path, residual, images, monkeypatch, saturates):
    pytest.importorskip("openvino")
    model = calibrate(quantize_model(residual, target="openvino", weight_bits=7), images[0], verbose=0)
    monkeypatch.setattr("tensorflow_quantization.export.verification.onnx.saturates", lambda runtime: saturates)
    monkeypatch.setattr("tensorflow_quantization.export.verification.onnx._deviation", lambda *arrays: float("nan"))
    with pytest.raises(VerificationError) as error:
        export(model, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")
    assert ("weight_bits=7" in str(error.value)) is saturates
