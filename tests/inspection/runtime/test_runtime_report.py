"""`runtime_report`: shares, reasons and errors; what each rule does in the runtimes is with the rules."""

import builtins
import json

import numpy as np
import onnx
import pytest
import qdq_violations as v
from qdq_files import QdqFile

from tensorflow_quantization.inspection.runtime.report import NodeReport, RuntimeReport
from tensorflow_quantization.inspection.runtime.runtime_report import RUNTIMES, runtime_report

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


#: The packages whose name is not that of the runtime.
PACKAGES = {"tensorrt": "tensorrt_rtx"}


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    package = PACKAGES.get(request.param, request.param)
    pytest.importorskip(package, reason=f"{package}, which {request.param} needs, is not installed")
    return request.param


def half(f):
    """A 3x3 Conv that runs in integers, and a Dense that does not: nothing quantizes its input."""
    y = f.pair(f.op("Relu", f.conv(f.pair(f.input()), name="first")))
    y = f.op("Sin", f.op("Flatten", f.op("GlobalAveragePool", y, name="pool")))
    return [f.op("Gemm", y, f.weights(12, 8), name="last", transB=1)]


def after_a_recurrent_layer(f):
    """A product in integers after an LSTM in float, which has nearly all multiply-accumulates."""
    y = f.op("LSTM", f.input((5, 1, 8)), f.floats(1, 64, 8), f.floats(1, 64, 16), hidden_size=16)
    y = f.pair(f.op("Reshape", y, f.ints(5, 16)))
    return [f.pair(f.op("Gemm", y, f.weights(4, 16), name="last", transB=1))]


def test_recurrent_layers_count(tmp_path, runtime):
    report = runtime_report(save(tmp_path / "m.onnx", after_a_recurrent_layer), runtime)
    assert report.macs == 5 * (8 + 16) * 64 + 5 * 16 * 4
    assert report.integer_share < 0.1


def test_openvino_runs_a_recurrent_layer_in_a_kernel_that_multiplies(tmp_path):
    def build(f):
        x = f.input((5, 1, 8))
        return [f.op("LSTM", x, f.floats(1, 64, 8), f.floats(1, 64, 16), hidden_size=16, name="layer")]

    report = runtime_report(save(tmp_path / "m.onnx", build), "openvino")
    assert report["layer"].kernel.startswith("RNNSeq") and report["layer"].ran == "float"


def with_an_unknown_size(f):
    """A product in integers, and one in float of as many rows as a tensor has elements that are not zero."""
    x = f.input((1, 8))
    y = f.pair(f.op("Gemm", f.pair(x), f.weights(4, 8), name="known", transB=1))
    rows = f.op("Transpose", f.op("NonZero", x), perm=[1, 0])
    rows = f.op("Cast", rows, to=onnx.TensorProto.FLOAT)
    return [y, f.op("MatMul", rows, f.floats(2, 16), name="unknown")]


def test_share_is_unknown_if_a_product_cannot_be_counted(tmp_path):
    report = runtime_report(save(tmp_path / "m.onnx", with_an_unknown_size))
    assert [node.name for node in report.uncounted] == ["unknown"]
    assert report["known"].ran == "integer" and report.integer_share is None
    assert "an unknown share in integers, because the shapes of unknown are unknown" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["integer_share"] is None
    # Whatever the counts are, all or nothing is in integers.
    for ran, share in (("integer", 1.0), ("float", 0.0)):
        nodes = [node for node in report.nodes if node.ran == ran]
        assert RuntimeReport("m.onnx", "a runtime", [*nodes, *uncounted(ran)], []).integer_share == share


def uncounted(ran):
    return [NodeReport("more", "MatMul", None, ran, "", "")]


def save(path, build):
    file = QdqFile()
    return file.save(path, *build(file))


def test_share_is_of_multiply_accumulates(runtime, tmp_path):
    report = runtime_report(save(tmp_path / "m.onnx", half), runtime)
    first, last = 8 * 8 * 8 * 8 * 9, 8 * 12
    assert report.macs == first + last
    assert report.integer_share == pytest.approx(first / (first + last))
    assert [node.name for node in report.multiplying] == ["first", "last"]
    assert [node.name for node in report.fallbacks] == ["last"]
    assert report["first"].ran == "integer" and report["first"].reason == ""
    assert "comes from Flatten 'flatten'" in report["last"].reason or "comes from Sin 'sin'" in report["last"].reason


def test_report_prints_is_json_and_markdown(runtime, tmp_path):
    report = runtime_report(save(tmp_path / "m.onnx", half), runtime)
    text = str(report)
    assert "99.7 % of 37 k multiply-accumulates in integers, 1 of 2 nodes that multiply" in text
    assert "reorders" in text and "last" in text
    read = json.loads(json.dumps(report.to_dict()))
    assert read["integer_share"] == report.integer_share and len(read["nodes"]) == len(report)
    assert report.to_markdown().count("\n") == 3
    html = report._repr_html_()
    assert "99.7 % of 37 k" in html and html.count("<tr>") == 3
    assert html.count("<li>") == text.partition("What to do:\n")[2].count("\n") + 1


def test_kernels_and_reorders_are_counted(tmp_path):
    def build(f):
        return [f.pair(f.op("Relu", f.conv(f.pair(f.input()))))]

    path = save(tmp_path / "m.onnx", build)
    report = runtime_report(path, "onnxruntime")
    # Its integer Conv wants channels last: one transpose before it, one behind.
    assert report.kernels == {"QuantizeLinear": 1, "Transpose": 2, "QLinearConv": 1, "DequantizeLinear": 1}
    assert (report.transposes, report.reorders) == (2, 0)
    report = runtime_report(path, "openvino")
    assert report.kernels["Convolution"] == 1
    # How many reorders there are depends on the processor; one makes the float output.
    assert report.transposes == 0 and report.reorders >= 1


def test_float_file_is_all_float(runtime, tmp_path):
    def build(f):
        x = f.op("Relu", f.op("Conv", f.input((1, 3, 32, 32)), f.floats(32, 3, 3, 3)))
        x = f.op("Add", x, f.op("Conv", x, f.floats(32, 32, 1, 1)))
        return [f.op("Gemm", f.op("Flatten", f.op("GlobalAveragePool", x)), f.floats(32, 5))]

    report = runtime_report(save(tmp_path / "m.onnx", build), runtime)
    assert report.integer_share == 0
    assert [node.ran for node in report.multiplying] == ["float"] * 3
    assert all("not-quantized" in node.reason for node in report.multiplying)


def test_nodes_without_names_or_with_the_same_are_told_apart(runtime, tmp_path):
    path = save(tmp_path / "m.onnx", half)
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.name = "same" if node.op_type in ("Conv", "Gemm") else ""
    onnx.save(proto, path)
    assert [node.ran for node in runtime_report(path, runtime).multiplying] == ["integer", "float"]


def test_products_of_constants_are_folded_and_not_counted(runtime, tmp_path):
    def build(f):
        weights = f.op("MatMul", f.floats(16, 4), f.floats(4, 12), name="folded")
        return [f.op("MatMul", f.input((1, 16)), weights, name="kept")]

    report = runtime_report(save(tmp_path / "m.onnx", build), runtime)
    assert report["folded"].ran == "folded" and report.macs == 16 * 12


def test_weights_alone_are_no_integer_arithmetic(runtime, tmp_path):
    def build(f):
        return [f.op("MatMul", f.input((1, 5, 16)), f.weights(16, 12, axis=1), name="victim")]

    assert runtime_report(save(tmp_path / "m.onnx", build), runtime)["victim"].ran == "float"


def test_dynamic_batch_stays_dynamic_and_counts_once(runtime, tmp_path):
    def build(f):
        return [f.pair(f.conv(f.pair(f.input(("batch", 8, 8, 8)))))]

    path = save(tmp_path / "m.onnx", build)
    assert runtime_report(path, runtime).macs == 8 * 8 * 8 * 8 * 9
    assert runtime_report(path, runtime, input_shapes=(4, 8, 8, 8)).macs == 4 * 8 * 8 * 8 * 8 * 9


def test_dynamic_length_asks_for_input_shapes(tmp_path):
    def build(f):
        return [f.op("MatMul", f.input(("batch", "length", 16)), f.weights(16, 12, axis=1))]

    path = save(tmp_path / "m.onnx", build)
    with pytest.raises(ValueError, match=r"Input 'x' has the shape \['batch', 'length', 16\]: pass input_shapes"):
        runtime_report(path)
    assert runtime_report(path, input_shapes={"x": (1, 7, 16)}).macs == 7 * 16 * 12


def test_attention_in_int8_is_integer_in_one_fused_kernel(runtime, tmp_path):
    def build(f):
        q, k, value = (f.pair(f.input((1, 4, 5, 16), n), dtype=np.int8) for n in "qkv")
        scores = f.op("MatMul", q, f.op("Transpose", k, perm=[0, 1, 3, 2]), name="scores")
        weights = f.pair(f.op("Softmax", scores, axis=-1), scale=1 / 256)
        return [f.op("MatMul", weights, value, name="mixed")]

    report = runtime_report(save(tmp_path / "m.onnx", build), runtime)
    assert [node.ran for node in report.multiplying] == ["integer", "integer"], str(report)


def test_external_weights_are_found(runtime, tmp_path):
    path = save(tmp_path / "m.onnx", half)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert runtime_report(path, runtime)["first"].ran == "integer"


def test_files_larger_than_protobuf_allows_keep_their_weights_beside(runtime, tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow_quantization.inspection.runtime.kernels._EMBEDDED", 0)
    assert runtime_report(save(tmp_path / "m.onnx", half), runtime)["first"].ran == "integer"


def test_file_is_not_touched(runtime, tmp_path):
    path = save(tmp_path / "m.onnx", half)
    before = (tmp_path / "m.onnx").read_bytes()
    runtime_report(path, runtime)
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_unknown_runtime_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"runtime must be one of .*got 'openvio'\. Did you mean 'openvino'"):
        runtime_report(tmp_path / "m.onnx", "openvio")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        runtime_report(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "title"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO"), ("tensorrt", "TensorRT for RTX")]
)
def test_missing_runtime_says_what_to_install(name, title, tmp_path, monkeypatch):
    real, package = builtins.__import__, PACKAGES.get(name, name)

    def without(module, *args, **kwargs):
        if module.partition(".")[0] == package:
            raise ImportError(module)
        return real(module, *args, **kwargs)

    path = save(tmp_path / "m.onnx", half)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"needs {title}: pip install {package.replace('_', '-')}"):
        runtime_report(path, name)


def test_file_that_the_runtime_rejects_says_so(runtime, tmp_path):
    path = save(tmp_path / "m.onnx", v.unknown_domain)
    with pytest.raises(ValueError, match=r"does not load .*m\.onnx: (.|\n)*check_onnx\(path"):
        runtime_report(path, runtime)


def test_errors_of_a_runtime_name_nodes_of_the_file(runtime, tmp_path):
    with pytest.raises(ValueError, match=r"victim|Mystery") as caught:
        runtime_report(save(tmp_path / "m.onnx", lambda f: [f.op("Mystery", f.input(), name="victim")]), runtime)
    assert "tq_" not in str(caught.value)


def test_report_lists_the_kernels_and_what_is_fused_into_them(runtime, tmp_path):
    report = runtime_report(save(tmp_path / "m.onnx", half), runtime)
    assert sum(report.kernels.values()) == len(report.executed)
    assert any("first" in kernel.nodes and kernel.integer for kernel in report.executed)
    assert all(len(nodes) > 1 for nodes in report.fused)
    assert sum(report.precisions.values()) == pytest.approx(1) and max(report.precisions.values()) > 0.99
    assert (report.bytes == {}) == (runtime != "tensorrt")


def test_report_says_what_to_do_about_a_fallback(tmp_path):
    report = runtime_report(save(tmp_path / "m.onnx", half))
    assert report["last"].fix and report["first"].fix == ""
    assert f"What to do:\n  Gemm: {report['last'].fix}" in str(report)


def test_compute_capability_is_of_gpus_only(tmp_path):
    with pytest.raises(ValueError, match=r"'openvino' has no compute_capability; it is an argument for .*'tensorrt'"):
        runtime_report(save(tmp_path / "m.onnx", half), "openvino", compute_capability="8.6")


def test_unknown_node_names_the_nearest(tmp_path):
    report = runtime_report(save(tmp_path / "m.onnx", half))
    with pytest.raises(KeyError, match="Did you mean 'first'"):
        report["firts"]
