import json

import pytest

from tensorflow_quantization import calibrate, compare, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.onnx_graph.files import read_onnx
from tensorflow_quantization.reporting import model_explorer_data


@pytest.fixture
def quantized(cnn, images):
    return calibrate(quantize_model(cnn, target="onnxruntime"), images[0], verbose=0)


def test_keys_are_the_nodes_of_the_file_and_values_what_ran(quantized, tmp_path):
    file = export_onnx(quantized, tmp_path / "m.onnx")
    data = json.loads(model_explorer_data(tmp_path / "data.json", runtime_report(file)).read_text())
    assert set(data["results"]) <= {node.name for node in read_onnx(file).graph.node}
    assert data["results"]["quant_conv/Conv"]["value"] == 1


def test_float_nodes_have_another_value(cnn, tmp_path):
    report = runtime_report(export_onnx(cnn, tmp_path / "m.onnx"))
    data = json.loads(model_explorer_data(tmp_path / "data.json", report).read_text())
    assert {result["value"] for result in data["results"].values()} == {0}


def test_with_a_comparison_values_are_decibels(cnn, quantized, images, tmp_path):
    comparison = compare(cnn, quantized, images[0])
    report = runtime_report(export_onnx(quantized, tmp_path / "m.onnx"))
    data = json.loads(model_explorer_data(tmp_path / "data.json", report, comparison).read_text())
    assert data["results"]["quant_conv/Conv"]["value"] == round(comparison["conv"].own_snr, 2)
    assert [item["stop"] for item in data["gradient"]] == [0, 1]


def test_wrong_results_say_what_to_pass(tmp_path):
    with pytest.raises(TypeError, match="report must be a result of runtime_report, got str"):
        model_explorer_data(tmp_path / "data.json", "m.onnx")
