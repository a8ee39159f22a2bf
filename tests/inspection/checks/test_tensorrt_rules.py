"""Each rule on a graph that breaks it, and what NVIDIA's builder does with this graph."""

import functools

import keras
import numpy as np
import onnx
import pytest
import qdq_violations as v
from hypothesis import given, settings
from qdq_files import QdqFile
from random_graphs import GRAPHS, build, quantized

from tensorflow_quantization import export_onnx, runtime_report
from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.checks.tensorrt import RULES

INT8 = {"dtype": np.int8}
FLOAT8 = onnx.TensorProto.FLOAT8E4M3FN

#: What the builder does with the file, or with the node that breaks the rule.
REFUSED, FLOAT, INT8_KERNEL = "refused", "float", "integer"

BROKEN = [
    ("implicit-dtype", "error", v.without_zero_point, INT8_KERNEL),
    ("dtype", "error", v.uint8_pair, INT8_KERNEL),
    ("zero-point", "error", v.int8_with_zero_point, REFUSED),
    ("pair-mismatch", "info", functools.partial(v.pair_mismatch, **INT8), INT8_KERNEL),
    ("weight-axis", "warning", functools.partial(v.conv_axis_1, **INT8), FLOAT),
    ("per-channel-activation", "warning", functools.partial(v.per_channel_activation, **INT8), FLOAT),
    ("int4-blocks", "info", v.int4_blocks_of_32, INT8_KERNEL),
    ("int4-one-scale", "info", v.one_int4_block, FLOAT),
    ("integer-operator", "error", v.qlinear_conv, REFUSED),
    ("operator-dtype", "error", v.moved_bytes, REFUSED),
    ("operator-dtype", "error", v.cast_int16, REFUSED),
    ("unknown-operator", "error", v.unknown_domain, REFUSED),
    ("unknown-operator", "error", v.unknown_operator, REFUSED),
    ("weight-adjacent", "warning", functools.partial(v.reshape_before_conv, **INT8), INT8_KERNEL),
    ("weight-adjacent", "warning", functools.partial(v.transpose_before_conv, **INT8), INT8_KERNEL),
    ("half-quantized", "warning", functools.partial(v.float_weights, **INT8), FLOAT),
    ("half-quantized", "warning", v.float_input, FLOAT),
    ("quantized-bias", "error", functools.partial(v.conv_bias_scale, **INT8), REFUSED),
    ("quantizer-inside-fusion", "info", v.quantizer_before_relu, INT8_KERNEL),
    ("quantizer-inside-fusion", "info", v.quantizer_before_batch_norm, INT8_KERNEL),
    ("residual-conv-branch", "info", v.residual_conv_branch, INT8_KERNEL),
    ("residual-float", "warning", v.residual_float, INT8_KERNEL),
    ("concat-scales", "info", v.unequal_concat, INT8_KERNEL),
    ("one-sided", "info", v.average_unquantized, FLOAT),
    ("average-padding", "info", v.average_without_padding, FLOAT),
    ("average-padding", "info", functools.partial(v.average, counted=0, size=3), FLOAT),
    ("transposed-convolution", "info", functools.partial(v.conv_transpose, **INT8), FLOAT),
    ("shared-dequantizer", "info", v.shared_dequantizer, INT8_KERNEL),
    ("not-quantized", "info", functools.partial(v.one_layer_float, **INT8), FLOAT),
]

#: Rules that are about no one node, or about a quantizer of it.
ELSEWHERE = [("scale", "error", v.negative_scale, REFUSED), ("scale", "error", v.computed_scale, REFUSED)]
ELSEWHERE += [("opset", "error", functools.partial(v.per_channel_in_opset_12, **INT8), INT8_KERNEL)]
ELSEWHERE += [("no-quantizers", "warning", v.float_model, FLOAT)]

#: Rules that keep their severity where the builder of TensorRT for RTX builds an Int8 kernel.
STRICTER = {
    "implicit-dtype": "ONNX says uint8: the Int8 kernel computes other numbers than the file",
    "dtype": "the Int8 kernel cannot hold the values of uint8",
    "opset": "the file is not valid ONNX",
    "weight-adjacent": "TensorRT 10 and 11",
    "residual-float": "more bytes in float, see test_a_quantized_shortcut_saves_bytes",
}


@pytest.mark.parametrize(("rule", "severity", "build"), [case[:3] for case in BROKEN])
def test_rule_is_found_on_the_node_that_breaks_it(rule, severity, build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    found = [finding for finding in check_onnx(path, "tensorrt") if finding.rule == rule]
    assert [finding.nodes[0] for finding in found] == ["victim"]
    assert found[0].severity == severity
    assert found[0].source.startswith(("TensorRT", "ONNX")) and found[0].fix.endswith(".")


@pytest.mark.parametrize(("rule", "severity", "build"), [case[:3] for case in ELSEWHERE])
def test_rule_about_a_quantizer_or_the_file_is_found(rule, severity, build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert {finding.severity for finding in check_onnx(path, "tensorrt") if finding.rule == rule} == {severity}


def test_every_rule_has_a_graph_that_breaks_it():
    assert {rule.id for rule in RULES} == {rule for rule, *_ in BROKEN + ELSEWHERE}


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


def bytes_cast_first(f):
    x = f.op("Cast", f.input(dtype=onnx.TensorProto.UINT8), to=onnx.TensorProto.FLOAT)
    return [f.conv(f.pair(f.op("Transpose", x, perm=[0, 1, 3, 2]), **INT8))]


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


def average_pooling(f):
    return v.average(f, counted=1)


def average_of_3x3_with_stride_1(f):
    return v.average(f, counted=0, size=3, stride=1)


def int4_weights_alone(f):
    f.opset = 21
    integers = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [128, 16], np.zeros(2048, np.int8))
    scales = f.constant(np.full((2, 16), 0.1, np.float32))
    w = f.op("DequantizeLinear", f.constant(integers), scales, axis=0, block_size=64)
    return [f.op("MatMul", f.input((1, 128)), w)]


CLEAN = [conv_bn_relu, quantized_residual, projection_residual, equal_concat, max_pool_behind_quantizer]
CLEAN += [quantized_pooling, matrix_products, weights_quantized_in_the_graph, average_pooling, bytes_cast_first]
CLEAN += [average_of_3x3_with_stride_1, float8, int4_blocks_of_64, int4_weights_alone]


@pytest.mark.parametrize("build", CLEAN)
def test_clean_graph_has_no_findings(build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert str(check_onnx(path, "tensorrt")).endswith("no findings")


def built(build, path):
    """The report of the builder; `None`: it refuses the file."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    file = QdqFile()
    try:
        return runtime_report(file.save(path, *build(file)), "tensorrt")
    except ValueError as error:
        assert "does not load" in str(error)
        return None


@pytest.mark.parametrize(("rule", "severity", "build", "verdict"), BROKEN + ELSEWHERE)
def test_the_builder_agrees_with_the_severity(rule, severity, build, verdict, tmp_path):
    report = built(build, tmp_path / "model.onnx")
    if report is None:
        found = REFUSED
    else:
        victim = next((node for node in report if node.name == "victim"), None)
        # A node without weights is fused into a kernel in float: the products tell.
        decides = [victim] if victim is not None and victim.ran in (FLOAT, INT8_KERNEL) else report.multiplying
        found = FLOAT if any(node.ran == "float" for node in decides) else INT8_KERNEL
    assert found == verdict
    if rule not in STRICTER:
        assert severity in {REFUSED: ["error"], FLOAT: ["warning", "info"], INT8_KERNEL: ["info"]}[verdict]
    elif STRICTER[rule] == "TensorRT 10 and 11":
        assert STRICTER[rule] in next(known.demands for known in RULES if known.id == rule)


@pytest.mark.parametrize("build", CLEAN)
def test_a_clean_graph_has_no_product_in_float(build, tmp_path):
    report = built(build, tmp_path / "model.onnx")
    if build is int4_weights_alone:  # a small product becomes a generated kernel that dequantizes the weights itself
        assert report is not None
    else:
        assert {node.precision for node in report.multiplying} <= {"Int8", "FP8"}
    assert all(node.ran != "float" for node in report if "Pool" in node.op_type)


def test_a_quantized_shortcut_saves_bytes(tmp_path):
    """Why residual-float is a warning: the shortcut is written in integers, and the products stay Int8."""

    def block(quantized):
        def build(f):
            x = f.op("Relu", f.conv(f.pair(f.input(), **INT8)))
            y = f.conv(f.pair(x, **INT8))
            total = f.op("Relu", f.op("Add", y, f.pair(x, **INT8) if quantized else x))
            return [f.conv(f.pair(total, **INT8))]

        return build

    plain, better = (built(block(quantized), tmp_path / "model.onnx") for quantized in (False, True))
    assert plain.integer_share == better.integer_share == 1.0
    assert better.bytes["Float"] < plain.bytes["Float"]


@settings(max_examples=4)
@given(**GRAPHS)
def test_random_networks_of_our_own_without_findings_have_no_float_product(tmp_path_factory, data_format, steps, head):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    keras.utils.clear_session(free_memory=False)
    model = build(data_format, steps, head)
    copy = quantized(model, target="tensorrt")
    copy(np.random.default_rng(0).normal(size=(4, *model.inputs[0].shape[1:])).astype("float32"), training=True)
    path = export_onnx(copy, tmp_path_factory.mktemp("own") / "m.onnx")
    explained = {finding.nodes[0] for finding in check_onnx(path) if finding.keeps_float and finding.nodes}
    in_float = {node.name for node in runtime_report(path, "tensorrt").multiplying if node.ran == "float"}
    assert in_float <= explained


@pytest.mark.parametrize(("size", "kernel"), [(16, "weights Int4"), (256, "weights Int4"), (512, "(Float)")])
def test_the_builder_reads_int4_weights_in_blocks_of_any_size_but_one_of_all(size, kernel, tmp_path):
    def product(f):
        return [f.op("MatMul", f.input((8, 512)), v.int4_blocks(f, 512, size))]

    (node,) = built(product, tmp_path / "model.onnx").multiplying
    assert kernel in node.kernel
