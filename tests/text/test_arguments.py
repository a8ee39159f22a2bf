import inspect

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import (
    CreateAssetsFolders,
    QuantizationSpec,
    calibrate,
    check_onnx,
    describe,
    export_litert,
    export_onnx,
    quantize_model,
    runtime_report,
)
from tensorflow_quantization.calibration import MinMax, Percentile
from tensorflow_quantization.calibration.histogram import Histogram
from tensorflow_quantization.quantize.spec import LayerConfig
from tensorflow_quantization.targets import find_target
from tensorflow_quantization.text.arguments import suggests_arguments


def network():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, name="dense")(inputs))


def test_signature_and_docstring_stay():
    assert "weight_bits" in inspect.signature(quantize_model).parameters
    assert quantize_model.__doc__.startswith("Return a copy of a model")


@suggests_arguments
def function(first, *, weight_bits=None, activation_bits=None):
    return first


def test_right_arguments_pass():
    assert function(1, weight_bits=4) == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bits", "Did you mean 'weight_bits' or 'activation_bits'?"),
        ("weigth_bits", "Did you mean 'weight_bits'"),
        ("zzz", "function has no argument 'zzz'.$"),
    ],
)
def test_unknown_arguments_are_named(name, hint):
    with pytest.raises(TypeError, match=hint):
        function(1, **{name: 4})


@pytest.mark.parametrize("made_by", [QuantizationSpec().add, LayerConfig])
def test_unknown_arguments_of_an_entry_are_named(made_by):
    with pytest.raises(TypeError, match=r"has no argument 'bits'. Did you mean 'weight_bits' or 'activation_bits'"):
        made_by("conv", bits=4)


@pytest.mark.parametrize(
    ("got", "name"),
    [
        ("ort", "onnxruntime"),
        ("onnx", "onnxruntime"),
        ("ONNX Runtime", "onnxruntime"),
        ("trt", "tensorrt"),
        ("TensorRT", "tensorrt"),
        ("tflite", "litert"),
        ("ov", "openvino"),
    ],
)
def test_other_names_of_a_target(got, name):
    with pytest.raises(ValueError, match=rf"got '{got}'\. Did you mean '{name}'\?$"):
        find_target(got)


def images():
    return np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


WRONG = {
    "target_as_mode": (lambda m: quantize_model(m, "onnxruntime"), ValueError, "Pass target='onnxruntime'"),
    "other_name_as_mode": (lambda m: quantize_model(m, "ort"), ValueError, "Pass target='onnxruntime'"),
    "spec_as_mode": (lambda m: quantize_model(m, QuantizationSpec()), TypeError, "quantization_spec=spec"),
    "target_of_wrong_type": (lambda m: quantize_model(m, target=["tensorrt"]), ValueError, "target must be one of"),
    "bits": (lambda m: quantize_model(m, bits=4), TypeError, "Did you mean 'weight_bits' or 'activation_bits'"),
    "model_path": (lambda m: quantize_model("m.keras"), TypeError, r"path 'm.keras'. Load it: keras.saving.load_model"),
    "onnx_swapped": (
        lambda m: export_onnx("m.onnx", m),
        TypeError,
        r"Pass the model first: export_onnx\(model, path\)",
    ),
    "litert_swapped": (
        lambda m: export_litert("m", m),
        TypeError,
        r"Pass the model first: export_litert\(model, path\)",
    ),
    "export_to_none": (lambda m: export_onnx(m, None), TypeError, "path must be a path.*got NoneType"),
    "export_a_path": (lambda m: export_onnx("m.keras", "m.onnx"), TypeError, "got the path 'm.keras'"),
    "check_a_model": (lambda m: check_onnx(m), TypeError, r"got Functional. A model is written to a file first"),
    "check_none": (lambda m: check_onnx(None), TypeError, "path must be a path"),
    "check_target": (lambda m: check_onnx("m.onnx", ["ort"]), ValueError, "target must be one of"),
    "report_a_model": (lambda m: runtime_report(m), TypeError, "path must be a path"),
    "report_runtime": (lambda m: runtime_report("m.onnx", "ort"), ValueError, "Did you mean 'onnxruntime'"),
    "describe_by_number": (lambda m: describe(m)[0], TypeError, r"index the list \.layers\. Got 0"),
    "describe_a_path": (lambda m: describe("m.keras"), TypeError, "got the path 'm.keras'"),
    "folders": (lambda m: CreateAssetsFolders(None), TypeError, "base_experiment_directory must be a path"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_get_a_clear_error(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call(network())
    assert not list(tmp_path.iterdir())


def test_folder_name_of_a_wrong_type(tmp_path):
    with pytest.raises(TypeError, match="folder_name must be a str, got 3"):
        CreateAssetsFolders(tmp_path / "base").add_folder(3)


WRONG_OF_CALIBRATE = {
    "no_data": ({"data": None}, TypeError, "data is None"),
    "steps_of_wrong_type": ({"steps": "2"}, TypeError, "steps must be an int or None, got '2'"),
    "negative_steps": ({"steps": -1}, ValueError, "steps must be at least 1, got -1"),
    "no_batch_size": ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    "function_of_a_number": ({"method": lambda: 3}, TypeError, "returns a RangeEstimator; it returned 3"),
    "function_of_a_class": ({"method": lambda: Percentile}, TypeError, "returns a RangeEstimator; it returned <class"),
    "instance": ({"method": MinMax()}, TypeError, "one MinMax, and each quantizer needs its own"),
    "abstract": ({"method": Histogram}, TypeError, "abstract class Histogram"),
    "number": ({"method": 3}, TypeError, "method must be one of"),
    "unknown": ({"calibrator": "mse"}, TypeError, "calibrate has no argument 'calibrator'. Did you mean 'method'"),
}


@pytest.mark.parametrize("case", WRONG_OF_CALIBRATE)
def test_wrong_arguments_of_calibrate_get_a_clear_error(case):
    arguments, error, message = WRONG_OF_CALIBRATE[case]
    with pytest.raises(error, match=message):
        calibrate(quantize_model(network()), **{"data": images(), "verbose": 0, **arguments})


def test_swapped_arguments_of_calibrate():
    with pytest.raises(TypeError, match=r"Pass the model first: calibrate\(model, data\)"):
        calibrate(images(), quantize_model(network()))


def test_the_quantizer_that_gets_nan_is_named():
    data = images()
    data[0, 0] = np.nan
    with pytest.raises(ValueError, match="'quant_dense/input_quantizer' got values that are NaN"):
        calibrate(quantize_model(network()), data, verbose=0)
