import numpy as np
import onnx
import pytest
import small_models
from onnx import numpy_helper
from onnx_models import export
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export import ExportError, VerificationError
from tensorflow_quantization.export.onnx import exporter


@pytest.fixture
def spoil(monkeypatch):
    """Lets a test change the file between its writing and its verification."""

    def spoil(change):
        def save(model, path):
            original(model, path)
            proto = onnx.load(path)
            change(proto)
            onnx.save(proto, path)

        original = exporter.save
        monkeypatch.setattr(exporter, "save", save)

    return spoil


def scale_initializer(name, factor):
    def change(proto):
        (tensor,) = (i for i in proto.graph.initializer if i.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), name))

    return change


@pytest.mark.parametrize("input_layout", ["channels_last", "channels_first"])
def test_float_models_agree(tmp_path, cnn, images, input_layout):
    export(cnn, tmp_path / "m.onnx", verify_with=images[0], input_layout=input_layout)


def test_a_wrong_float_file_is_not_written(tmp_path, cnn, images, spoil):
    spoil(scale_initializer("dense/kernel", 1.001))
    message = r"output 'dense' by 0\.000\d+ of its largest value \(allowed: 0\.0001\)"
    with pytest.raises(VerificationError, match=message):
        export(cnn, tmp_path / "m.onnx", verify_with=images[0])
    assert not list(tmp_path.iterdir())


def test_a_file_of_nan_is_not_written(tmp_path, cnn, images, spoil):
    spoil(scale_initializer("dense/kernel", np.nan))
    with pytest.raises(VerificationError, match="output 'dense'"):
        export(cnn, tmp_path / "m.onnx", verify_with=images[0])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("quant_conv/input_scale", "input_quantizer of 'quant_conv'"),
        ("quant_stem/kernel_scale", "input_quantizer of 'quant_conv'"),
        ("quant_dense/bias", "output 'quant_dense'"),
    ],
)
def test_a_wrong_quantized_file_names_where_it_deviates(tmp_path, residual, images, spoil, name, where):
    quantized = quantize_model(residual)
    calibrate(quantized, images[0])
    before = small_models.values(quantized)
    spoil(scale_initializer(name, 1.05))
    with pytest.raises(VerificationError, match=where):
        export(quantized, tmp_path / "m.onnx", verify_with=images[0])
    small_models.assert_same_arrays(small_models.values(quantized), before)


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_openvino_agrees(tmp_path, residual, images, target):
    pytest.importorskip("openvino")
    if EXACT_WEIGHT_BITS and target in (None, "tensorrt"):
        pytest.skip("without VNNI, OpenVINO halves the weights where activations are int8, and rounds them")
    quantized = quantize_model(residual, target=target, weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, images[0])
    export(quantized, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")


def test_a_file_that_openvino_gets_wrong_is_not_written(tmp_path, residual, images, spoil):
    pytest.importorskip("openvino")
    quantized = quantize_model(residual, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, images[0])
    spoil(scale_initializer("quant_stem/kernel_scale", 1.05))
    with pytest.raises(VerificationError, match=r"OpenVINO and Keras disagree, most in .*'quant_"):
        export(quantized, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_quantizers_work_again_after_verification(tmp_path, residual, images, target):
    quantized = quantize_model(residual, target=target)
    calibrate(quantized, images[0])
    before = quantized.predict(images[0], verbose=0)
    export(quantized, tmp_path / "m.onnx", verify_with=images[0])
    np.testing.assert_array_equal(quantized.predict(images[0], verbose=0), before)


@pytest.mark.parametrize("form", ["dict by input name", "dict of the model", "list"])
def test_inputs_come_as_predict_takes_them(tmp_path, form):
    builder = small_models.dict_in_and_out if form == "dict of the model" else small_models.siamese
    model = builder()
    x = small_models.data_for(model)
    if form == "dict by input name":
        x = dict(zip(["right", "left"], x[::-1], strict=True))
    export(model, tmp_path / "m.onnx", verify_with=x)


@pytest.mark.parametrize("x", [[np.zeros((2, 8, 8, 3))] * 2, np.zeros((2, 8)), {"other": np.zeros((2, 8, 8, 3))}])
def test_input_that_does_not_fit(tmp_path, cnn, x):
    with pytest.raises(ExportError, match=r"one array for each input \(image \(None, 8, 8, 3\)\), got shapes"):
        export(cnn, tmp_path / "m.onnx", verify_with=x)
