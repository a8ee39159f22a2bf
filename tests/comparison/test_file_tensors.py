import faulty_models
import keras
import numpy as np
import onnx
import pytest
from faulty_models import NETWORKS
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, compare, export_litert, export_onnx, quantize_model
from tensorflow_quantization.comparison.findings import Kind
from tensorflow_quantization.export.verification.processor import saturates


def quantized(network, target, weight_bits=EXACT_WEIGHT_BITS):
    build, samples = NETWORKS[network]
    model = build()
    bits = {} if weight_bits is None else {"weight_bits": weight_bits}
    return model, calibrate(quantize_model(model, target=target, **bits), samples(), verbose=0), samples()


def kinds(report):
    return {finding.kind for finding in report.worst}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("network", "target"),
    [("chain", "onnxruntime"), ("mobile", "openvino"), ("mobile", None), ("dense", "onnxruntime")],
)
def test_the_tensors_of_a_file_are_those_of_keras(network, target, layout, tmp_path):
    pytest.importorskip(target or "onnxruntime")
    model, q_model, data = quantized(network, target)
    path = export_onnx(q_model, tmp_path / "model.onnx", input_layout=layout)
    report = compare(model, q_model, data, file=path)
    assert report.file_snr > report.output_snr
    assert Kind.RUNTIME not in kinds(report)
    with_tensors = [layer for layer in report if layer.runtime_snr is not None]
    assert len(with_tensors) >= len(report) / 2
    for layer in with_tensors:
        assert layer.runtime_steps <= 0.51  # rounding, and values halfway between two integers
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_that_computes_something_else_is_named_with_its_layer(tmp_path):
    model, q_model, data = quantized("chain", "onnxruntime")
    path = export_onnx(q_model, tmp_path / "model.onnx")
    proto = onnx.load(path)
    (conv,) = [node for node in proto.graph.node if node.op_type == "Conv" and "conv1" in node.name]
    (pads,) = [attribute for attribute in conv.attribute if attribute.name == "pads"]
    pads.ints[:] = [2, 2, 0, 0]
    onnx.save(proto, path)
    finding = compare(model, q_model, data, file=path).worst[0]
    assert (finding.layer, finding.kind) == ("relu1", "runtime")
    assert "Export the model again" in finding.remedy or "VNNI" in finding.remedy


def test_a_runtime_that_saturates_is_named(tmp_path):
    pytest.importorskip("openvino")
    if not saturates("openvino"):
        pytest.skip("this processor has VNNI")
    model, q_model, data = quantized("mobile", "openvino", weight_bits=None)
    path = export_onnx(q_model, tmp_path / "model.onnx")
    finding = compare(model, q_model, data, file=path).worst[0]
    assert finding.kind is Kind.RUNTIME
    assert "weight_bits=7" in finding.remedy


def test_a_litert_file(tmp_path):
    pytest.importorskip("ai_edge_litert")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("LiteRT files are written on TensorFlow")
    model, q_model, data = quantized("chain", "litert", weight_bits=None)
    report = compare(model, q_model, data, file=export_litert(q_model, tmp_path / "model.tflite"))
    assert report.file_snr > report.output_snr
    assert all(layer.runtime_snr > 30 for layer in report if layer.runtime_snr is not None)


def test_a_file_of_another_model_is_refused(tmp_path):
    model, q_model, data = quantized("chain", "onnxruntime")
    other = quantize_model(faulty_models.mobile(), target="onnxruntime")
    calibrate(other, data, verbose=0)
    path = export_onnx(other, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"was not written from 'chain'.*Pass the model that export_onnx got"):
        compare(model, q_model, data, file=path)


def test_a_file_of_a_model_with_other_shapes_is_refused(tmp_path):
    def build(padding):
        inputs = keras.Input((8, 8, 3), name="image")
        x = keras.layers.Conv2D(4, 3, padding=padding, activation="relu", name="first")(inputs)
        x = keras.layers.Conv2D(2, 3, padding=padding, name="last")(x)
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="mean")(x), name="net")

    data = np.random.default_rng(0).random((8, 8, 8, 3), "float32")
    model = build("same")
    q_model = calibrate(quantize_model(model, target="onnxruntime"), data, verbose=0)
    other = quantize_model(build("valid"), target="onnxruntime")
    other.set_weights(q_model.get_weights())
    path = export_onnx(other, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"^'.*other.onnx' was not written from 'net'.*Export the model again"):
        compare(model, q_model, data, file=path)


def test_wrong_files_and_runtimes(tmp_path):
    model, q_model, data = quantized("dense", "onnxruntime")
    with pytest.raises(FileNotFoundError):
        compare(model, q_model, data, file=tmp_path / "none.onnx")
    path = export_onnx(q_model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="runtime must be one of 'onnxruntime', 'openvino', got 'tensorrt'"):
        compare(model, q_model, data, file=path, runtime="tensorrt")
    with pytest.raises(ValueError, match=r"does not run .*model\.tflite"):
        compare(model, q_model, data, file=tmp_path / "model.tflite", runtime="openvino")
