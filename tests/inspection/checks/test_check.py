"""`check_onnx` and its report."""

import json

import numpy as np
import onnx
import pytest
import qdq_violations as v
from qdq_files import QdqFile

from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.checks.check import RULES


def save(path, build):
    file = QdqFile()
    return file.save(path, *build(file))


def test_finding_says_what_where_why_and_what_to_do(tmp_path):
    (finding,) = check_onnx(save(tmp_path / "m.onnx", v.relu_int8), "onnxruntime").warnings
    assert finding.nodes == ("victim", "relu", "q_2")
    assert finding.what == "the Relu stays: the zero point after it is 0, not the least int8, -128"
    assert finding.fix == "After it, quantize to uint8 with zero point 0; after a Clip, up to its upper limit."
    assert finding.source == "Measured: ONNX Runtime 1.32, x86 CPU"
    assert str(finding).startswith("warning [clipping] victim, relu, q_2: the Relu stays")


def test_report_prints_the_rule_the_nodes_and_the_fix(tmp_path):
    path = save(tmp_path / "m.onnx", v.residual_conv_branch)
    text = str(check_onnx(path))
    assert text.startswith(f"{path} for tensorrt: 1 info\n")
    assert "info [residual-conv-branch] In TensorRT 10 and 11 an Add fuses" in text
    assert "victim, q_2, conv" in text and "What to do: Remove the Q/DQ" in text


def test_finding_about_the_file_says_so(tmp_path):
    (finding,) = check_onnx(save(tmp_path / "m.onnx", v.float_model)).warnings
    assert str(finding).startswith("warning [no-quantizers] the file: it has no QuantizeLinear. Quantize the model")


def test_report_counts_what_it_does_not_show(tmp_path):
    file = QdqFile()
    x = file.pair(file.input())
    path = file.save(tmp_path / "m.onnx", *[file.conv(x) for _ in range(13)])
    report = check_onnx(path, "onnxruntime")
    assert len(report) == 13
    assert "and 3 more, in .findings or with --json" in str(report)


def test_report_is_json_and_worst_first(tmp_path):
    report = check_onnx(save(tmp_path / "m.onnx", v.without_zero_point))
    read = json.loads(json.dumps(report.to_dict()))
    assert read["target"] == "tensorrt" and read["ok"] is False
    severities = [finding["severity"] for finding in read["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert report.to_markdown().count("\n") == len(report) + 1
    assert report._repr_html_().count("<tr>") == len(report) + 1


def test_information_alone_is_ok_and_a_report_is_true(tmp_path):
    report = check_onnx(save(tmp_path / "m.onnx", v.int8_activations), "onnxruntime")
    assert len(report) == 1 and report.ok
    clean = check_onnx(save(tmp_path / "m.onnx", v.tensorrt_style), "openvino")
    assert len(clean) == 0 and clean.ok and clean


@pytest.mark.parametrize(
    ("recorded", "checked"), [(None, "tensorrt"), ("openvino", "openvino"), ("default", "tensorrt"), ("x", "tensorrt")]
)
def test_without_a_target_the_file_is_checked_for_its_own(tmp_path, recorded, checked):
    path = save(tmp_path / "m.onnx", v.relu_int8)
    if recorded is not None:
        proto = onnx.load(path)
        onnx.helper.set_model_props(proto, {"target": recorded})
        onnx.save(proto, path)
    assert check_onnx(path).target == checked
    assert check_onnx(path, "onnxruntime").target == "onnxruntime"


def test_unnamed_nodes_are_called_by_their_output(tmp_path):
    path = save(tmp_path / "m.onnx", v.relu_int8)
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.ClearField("name")
    onnx.save(proto, path)
    assert check_onnx(path, "onnxruntime").warnings[0].nodes[0] == "Conv of victim_out"


def test_external_weights_are_read_from_beside_the_file(tmp_path):
    path = save(tmp_path / "m.onnx", v.computed_scale)
    proto = onnx.load(save(tmp_path / "m.onnx", v.int8_with_zero_point))
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert (tmp_path / "m.data").exists()
    assert "zero-point" in check_onnx(path).rules


def test_local_functions_are_looked_into(tmp_path):
    path = save(tmp_path / "m.onnx", v.float_weights)
    proto = onnx.load(path)
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    function = onnx.helper.make_function(
        "my.layers", "Layer", ["a", "b"], ["c"], [onnx.helper.make_node("Conv", ["a", "b"], ["c"])],
        [onnx.helper.make_opsetid("", 17)],
    )  # fmt: skip
    conv.op_type, conv.domain = "Layer", "my.layers"
    proto.functions.append(function)
    proto.opset_import.append(onnx.helper.make_opsetid("my.layers", 1))
    onnx.save(proto, path)
    assert check_onnx(path, "onnxruntime").rules == ["float-weights"]


def test_nodes_inside_a_branch_are_checked(tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "m.onnx", *v.relu_int8(file))
    body = onnx.load(path).graph
    outer = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["condition"], ["y"], then_branch=_branch(body), else_branch=_branch(body))],
        "outer",
        [onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, ()), *body.input],
        [onnx.ValueInfoProto(name="y")],
    )
    outer.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(onnx.helper.make_model(outer, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    assert [finding.rule for finding in check_onnx(path, "onnxruntime").warnings] == ["clipping", "clipping"]


def _branch(graph):
    branch = onnx.GraphProto()
    branch.CopyFrom(graph)
    del branch.input[:]
    return branch


def test_unknown_target_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"target must be one of .*got 'onnxrt'\. Did you mean 'onnxruntime'"):
        check_onnx(tmp_path / "m.onnx", "onnxrt")


def test_litert_is_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"LiteRT reads \.tflite files, which are not ONNX"):
        check_onnx(tmp_path / "m.onnx", "litert")


def test_missing_file_directory_and_other_formats_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing\.onnx"):
        check_onnx(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match="is a directory"):
        check_onnx(tmp_path)
    for name, content in (("a.onnx", b"\x00\x01 no protobuf"), ("b.onnx", b""), ("c.tflite", b"TFL3")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"not an ONNX model|is a LiteRT file"):
            check_onnx(tmp_path / name)


@pytest.mark.parametrize("target", RULES)
def test_rules_read_as_sentences_with_unique_names(target):
    rules = RULES[target]
    assert len({rule.id for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.demands.endswith(".") and rule.fix.endswith(".") and rule.source, rule.id


@pytest.mark.parametrize("target", RULES)
def test_odd_graphs_are_no_errors(target, tmp_path):
    """A DequantizeLinear of a graph input, a Gemm without data, constants of constants: nothing here may raise."""
    file = QdqFile(opset=21)
    x = file.input((8, 16), "stored", onnx.TensorProto.INT8)
    dequantized = file.op("DequantizeLinear", x, file.constant(np.float32(0.1)))
    a = file.op("MatMul", dequantized, file.weights(16, 4, axis=1))
    b = file.op("Add", file.floats(3), file.floats(3))
    c = file.op("Clip", a, "", file.constant(np.float32(6)))
    path = file.save(tmp_path / "m.onnx", c, b)
    assert check_onnx(path, target).target == target
