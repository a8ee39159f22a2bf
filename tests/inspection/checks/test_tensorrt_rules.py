"""Each rule on a graph that breaks it. No TensorRT is at hand: the rules are those of its documentation."""

import functools

import numpy as np
import onnx
import pytest
import qdq_violations as v
from qdq_files import QdqFile

from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.checks.tensorrt import RULES

INT8 = {"dtype": np.int8}
FLOAT8 = onnx.TensorProto.FLOAT8E4M3FN

BROKEN = [
    ("implicit-dtype", "error", v.without_zero_point),
    ("dtype", "error", v.uint8_pair),
    ("zero-point", "error", v.int8_with_zero_point),
    ("pair-mismatch", "warning", functools.partial(v.pair_mismatch, **INT8)),
    ("weight-axis", "error", functools.partial(v.conv_axis_1, **INT8)),
    ("per-channel-activation", "error", functools.partial(v.per_channel_activation, **INT8)),
    ("int4-blocks", "error", v.int4_blocks_of_32),
    ("integer-operator", "error", v.qlinear_conv),
    ("unknown-operator", "error", v.unknown_domain),
    ("unknown-operator", "error", v.unknown_operator),
    ("weight-adjacent", "error", functools.partial(v.reshape_before_conv, **INT8)),
    ("weight-adjacent", "error", functools.partial(v.transpose_before_conv, **INT8)),
    ("half-quantized", "warning", functools.partial(v.float_weights, **INT8)),
    ("half-quantized", "warning", v.float_input),
    ("quantized-bias", "warning", functools.partial(v.conv_bias_scale, **INT8)),
    ("quantizer-inside-fusion", "warning", v.quantizer_before_relu),
    ("quantizer-inside-fusion", "warning", v.quantizer_before_batch_norm),
    ("residual-conv-branch", "warning", v.residual_conv_branch),
    ("residual-float", "warning", v.residual_float),
    ("concat-scales", "warning", v.unequal_concat),
    ("one-sided", "info", functools.partial(v.pooling_unquantized, **INT8)),
    ("shared-dequantizer", "info", v.shared_dequantizer),
    ("not-quantized", "info", functools.partial(v.one_layer_float, **INT8)),
]

#: Rules that are about no one node, or about a quantizer of it.
ELSEWHERE = [("scale", "error", v.negative_scale), ("scale", "error", v.computed_scale)]
ELSEWHERE += [("opset", "error", functools.partial(v.per_channel_in_opset_12, **INT8))]
ELSEWHERE += [("no-quantizers", "warning", v.float_model)]


@pytest.mark.parametrize(("rule", "severity", "build"), BROKEN)
def test_rule_is_found_on_the_node_that_breaks_it(rule, severity, build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    found = [finding for finding in check_onnx(path, "tensorrt") if finding.rule == rule]
    assert [finding.nodes[0] for finding in found] == ["victim"]
    assert found[0].severity == severity
    assert found[0].source.startswith(("TensorRT documentation", "ONNX")) and found[0].fix.endswith(".")


@pytest.mark.parametrize(("rule", "severity", "build"), ELSEWHERE)
def test_rule_about_a_quantizer_or_the_file_is_found(rule, severity, build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert {finding.severity for finding in check_onnx(path, "tensorrt") if finding.rule == rule} == {severity}


def test_every_rule_has_a_graph_that_breaks_it():
    assert {rule.id for rule in RULES} == {rule for rule, _, _ in BROKEN + ELSEWHERE}


@pytest.mark.parametrize(
    ("build", "opset", "needs"), [(lambda f: float8(f), 19, "8-bit floats"), (v.int4_blocks_of_32, 21, "4- and 16-bit")]
)
def test_opset_below_what_a_dtype_needs_is_found(build, opset, needs, tmp_path):
    file = QdqFile()
    outputs = build(file)
    assert file.opset == opset
    file.opset = opset - 1
    found = [f for f in check_onnx(file.save(tmp_path / "model.onnx", *outputs)) if f.rule == "opset"]
    assert any(needs in finding.what and f"opset {opset}" in finding.what for finding in found)


def conv_bn_relu(f):
    y = f.conv(f.pair(f.input(), **INT8))
    y = f.op("BatchNormalization", y, *(f.constant(np.ones(8, np.float32)) for _ in range(4)))
    return [f.conv(f.pair(f.op("Relu", y), **INT8))]


def quantized_residual(f):
    return v.residual(f, conv_branch=False, other_branch=True)


def projection_residual(f):
    """Both branches are Convs: one fuses with the Add, the other is its residual."""
    x = f.input()
    y, z = f.conv(f.pair(x, **INT8)), f.pair(f.conv(f.pair(x, 0.06, **INT8)), **INT8)
    return [f.op("Relu", f.op("Add", y, z))]


def equal_concat(f):
    x, z = f.pair(f.input(), **INT8), f.pair(f.input(name="z"), **INT8)
    return [f.conv(f.op("Concat", x, z, axis=1), channels=16)]


def max_pool_behind_quantizer(f):
    return [f.conv(f.op("MaxPool", f.pair(f.input(), **INT8), kernel_shape=[2, 2]))]


def quantized_pooling(f):
    return [
        v.dense(f, f.op("Flatten", f.pair(f.op("GlobalAveragePool", f.pair(f.input((1, 16, 8, 8)), **INT8)), **INT8)))
    ]


def matrix_products(f):
    x = f.op("MatMul", f.pair(f.input((1, 5, 16)), **INT8), f.weights(16, 12, axis=1))
    return [f.op("MatMul", f.pair(x, **INT8), f.pair(f.input((1, 12, 4), "z"), **INT8))]


def weights_quantized_in_the_graph(f):
    weights = f.pair(f.floats(8, 8, 3, 3), np.full(8, 0.02), np.zeros(8), np.int8, axis=0)
    return [f.op("Conv", f.pair(f.input(), **INT8), weights)]


def float8(f):
    f.opset = 19
    scale, zero = f.constant(np.float32(0.05)), f.constant(onnx.helper.make_tensor("z", FLOAT8, [], [0.0]))
    x = f.op("DequantizeLinear", f.op("QuantizeLinear", f.input((1, 16)), scale, zero), scale, zero)
    w = f.op("QuantizeLinear", f.floats(16, 12), scale, zero)
    return [f.op("MatMul", x, f.op("DequantizeLinear", w, scale, zero))]


def int4_blocks_of_64(f):
    f.opset = 21
    integers = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [128, 16], np.zeros(2048, np.int8))
    scales = f.constant(np.full((2, 16), 0.1, np.float32))
    w = f.op("DequantizeLinear", f.constant(integers), scales, axis=0, block_size=64)
    return [f.op("MatMul", f.pair(f.input((1, 128)), **INT8), w)]


def transposed_convolution(f):
    return [f.op("ConvTranspose", f.pair(f.input(), **INT8), f.weights(8, 4, 3, 3, axis=1))]


CLEAN = [conv_bn_relu, quantized_residual, projection_residual, equal_concat, max_pool_behind_quantizer]
CLEAN += [quantized_pooling, matrix_products, weights_quantized_in_the_graph, transposed_convolution]
CLEAN += [float8, int4_blocks_of_64]


@pytest.mark.parametrize("build", CLEAN)
def test_clean_graph_has_no_findings(build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert str(check_onnx(path, "tensorrt")).endswith("no findings")
