"""Each rule on a graph that breaks it, and what OpenVINO really makes of that graph."""

import functools
import platform

import numpy as np
import openvino_violations as own
import pytest
import qdq_violations as v
from onnx_models import run
from qdq_files import QdqFile

from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.checks.openvino import RULES
from tensorflow_quantization.inspection.runtime.runtime_report import runtime_report

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="rules of x86")

grouped = functools.partial(v.conv_transpose, group=2)

#: Rule, graph, and how its victim runs; "" where the runtime is not asked: it would not load the file.
BROKEN = [
    ("scale", v.negative_scale, ""),
    ("scale", v.computed_scale, "float"),
    ("pair-mismatch", v.pair_mismatch, ""),
    ("opset", v.per_channel_in_opset_12, ""),
    ("weight-axis", v.conv_axis_1, "float"),
    ("weight-axis", functools.partial(v.conv_transpose, axis=0), "float"),
    ("matrix-axis", v.gemm_axis_1, ""),
    ("matrix-axis", v.matmul_axis_0, ""),
    ("unknown-operator", v.unknown_domain, ""),
    ("no-quantizers", v.float_model, "float"),
    ("not-quantized", v.one_layer_float, "float"),
    ("weights-in-blocks", v.float_input_of_blocks, "float"),
    ("half-quantized", v.float_input, "float"),
    ("half-quantized", v.float_weights, "float"),
    ("weight-zero-point", v.uint8_weights, "float"),
    ("weight-zero-point", functools.partial(v.uint8_weights, zero=128), "float"),
    ("weight-zero-point", own.int8_weights_with_zero_point, "float"),
    ("activation-dtype", v.int16_activations, "float"),
    ("weight-dtype", v.int16_weights, "float"),
    ("matmul-zero-points", own.product((np.uint8, 128), (np.int8, 0)), "float"),
    ("matmul-zero-points", own.product((np.int8, 5), (np.int8, 0)), "float"),
    ("matmul-zero-points", own.product((np.int8, 0), (np.int8, 5)), "float"),
    ("matmul-zero-points", own.product((np.uint8, 0), (np.uint8, 0)), "float"),
    ("grouped-transposed", grouped, "float"),
    ("counted-padding", own.counted_padding(128), ""),
    ("counted-padding", own.counted_padding(128, "Pad"), ""),
    ("pooled-activation", own.pooled("HardSwish"), ""),
    ("negated-activation", own.negated(), ""),
    ("uncovered-point", own.uncovered(), ""),
    ("channelwise-reduction", own.reduced(), ""),
    ("lost-scales", own.shared(), ""),
    ("quantized-reduction", own.quantized_maximum, ""),
    ("misplaced-constant", own.misplaced_constant, ""),
    ("dequantized-input", own.dequantized_mean, ""),
    ("rounded-result", own.rounded_result, ""),
    ("scaled-normalization", own.scaled_normalization, ""),
    ("sequence-lengths", own.recurrent(read=(1,)), ""),
    ("sequence-lengths", own.recurrent(direction="reverse"), ""),
    ("recurrent-activation", own.recurrent("RNN", lengths=False, activations=["Softsign"]), ""),
    ("strided-pointwise", own.two_strided_pointwise, "float"),
    ("integer-operator", functools.partial(v.qlinear_conv, scales=8), "float"),
    ("integer-operator", own.matmul_integer, "float"),
    *(("float-operator", v.quantized(name), "float") for name in ("HardSigmoid", "Softmax", "Softplus")),
    ("quantized-elementwise", v.quantized("Tanh"), ""),
]


@pytest.mark.parametrize(("rule", "build", "ran"), BROKEN)
def test_rule_is_found_and_the_runtime_agrees(rule, build, ran, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    found = [finding for finding in check_onnx(path, "openvino") if finding.rule == rule]
    assert found
    if ran:
        node = runtime_report(path, "openvino")["victim"]
        assert node.ran == ran
        if found[0].keeps_float:
            assert rule in node.reason


def test_every_rule_has_a_graph_that_breaks_it():
    assert {rule.id for rule in RULES} == {rule for rule, _, _ in BROKEN}


@pytest.mark.parametrize(
    ("zero", "before", "wrong"),
    [(128, "", True), (128, "Pad", True), (128, "Pad, Q, DQ", False), (0, "", False), (0, "Pad", False)],
)
def test_averages_over_padding_are_wrong_where_the_rule_is_broken(tmp_path, zero, before, wrong):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *own.counted_padding(zero, before)(file))
    assert ["counted-padding"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    off = np.abs(compiled(x)[0] - run(path, [x], optimize=False)[0]).max()
    assert off > 1 if wrong else off < 0.06  # a quantum is 0.05


@pytest.mark.parametrize(
    ("build", "wrong"),
    [
        *((own.pooled(activation), True) for activation in ("Abs", "HardSwish", "silu", "gelu", "mish")),
        *((own.pooled(activation, moved=True), activation != "silu") for activation in ("Abs", "gelu", "silu")),
        (own.pooled("silu", affine=True), True),
        (own.pooled("silu", barrier=True), False),
        (own.pooled("silu", before="Relu"), False),
        (own.pooled("Sigmoid"), False),
    ],
)
def test_activations_are_computed_before_a_pool_where_the_rule_is_broken(tmp_path, build, wrong):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert ["pooled-activation"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    off = np.abs(compiled(x)[0] - run(path, [x], optimize=False)[0]).max()
    assert off > 0.02 if wrong else off < 1e-4


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        *(({"activation": name}, True) for name in ("Relu", "LeakyRelu", "PRelu")),
        *(({"negating": name}, True) for name in ("Mul", "Div", "Sub")),
        ({"op_type": "ConvTranspose"}, True),
        *(({"between": names}, True) for names in (["Transpose"], ["Mul"], ["Add"])),
        *(({"activation": name}, False) for name in ("Elu", "Sigmoid", "Abs")),
        ({"negating": "shifted"}, False),
        ({"negating": "Sub", "between": ["Add"]}, False),
        ({"bias": 0.0}, True),
        ({"bias": 0.5}, False),
        ({"quantized": False}, False),
        ({"barrier": True}, False),
    ],
    ids=str,
)
def test_factors_are_applied_before_an_activation_where_the_rule_is_broken(tmp_path, options, wrong):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *own.negated(**options)(file))
    assert ["negated-activation"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(1, 8, 8, 8)).astype("float32") for _ in file.inputs]
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (expected,) = run(path, x, optimize=False)
    off, size = np.abs(compiled(x)[0] - expected).max(), np.abs(expected).max()
    assert off > 0.2 * size if wrong else off < 0.02 * size  # a few sums saturate without VNNI


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        *(({"after": name}, True) for name in (None, "Transpose", "Mul", "Neg")),
        ({"after": "Add", "bias": 0.0}, True),
        *(({"after": name}, False) for name in ("Max", "Relu", "Abs")),
        ({"kernel": 3}, False),
        ({"zero": 100}, False),
        ({"bias": 0.0}, False),
        ({"quantized": False}, False),
    ],
    ids=str,
)
def test_points_have_no_bias_where_the_rule_is_broken(tmp_path, options, wrong):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *own.uncovered(**options)(file))
    assert ["uncovered-point"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    off = np.abs(compiled(x)[0] - run(path, [x], optimize=False)[0])
    assert (off > 0.2).mean() > 0.1 if wrong else (off > 0.2).mean() < 0.02  # a few sums saturate without VNNI


@pytest.mark.parametrize(("options", "wrong"), [({}, True), ({"barrier": True}, False), ({"rank": 4}, False)])
def test_channels_are_taken_for_the_batch_where_the_rule_is_broken(tmp_path, options, wrong):
    """More forms: `tests/onnx_graph/test_channelwise_reductions.py`."""
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *own.reduced(**options)(file))
    assert ["channelwise-reduction"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    x = np.random.default_rng(0).normal(size=(2, 8, *[5] * (options.get("rank", 3) - 2))).astype("float32")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    off = np.abs(compiled(x)[0] - run(path, [x], optimize=False)[0]).max()
    assert off > 0.02 if wrong else off < 1e-4


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"read": (1,)}, True),
        ({"read": (2,), "op_type": "LSTM"}, True),
        ({"direction": "reverse"}, True),
        ({"read": (1,), "batch": 3}, False),
        ({"read": (1,), "lengths": False}, False),
        ({"read": (0,)}, False),
    ],
)
def test_lengths_of_sequences_of_unknown_shape_are_ignored(tmp_path, options, wrong):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *own.recurrent(**options)(file))
    assert ["sequence-lengths"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    lengths = np.asarray([5, 2, 3], "int32")
    feeds = [np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32"), lengths][: len(file.inputs)]
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    actual, (expected,) = compiled(feeds)[0], run(path, feeds)
    if 0 in options.get("read", (0,)):  # (time, directions, batch, units): only the steps of each sequence
        steps = np.arange(5)[:, None, None, None] < lengths[:, None]
        actual, expected = actual * steps, expected * steps
    off = np.abs(actual - expected).max()
    assert off > 0.01 if wrong else off < 1e-5


def test_activations_that_are_not_loaded(tmp_path):
    file = QdqFile()
    build = own.recurrent("RNN", lengths=False, activations=["Softsign"])
    with pytest.raises(RuntimeError, match="softsign"):
        openvino.compile_model(file.save(tmp_path / "model.onnx", *build(file)), "CPU")


def strided_behind_max_pool(f):
    x = f.op("MaxPool", f.pair(f.input()), kernel_shape=[1, 1], strides=[2, 2])
    return [f.pair(f.conv(x, kernel=1)), f.pair(f.conv(x, kernel=1))]


def strided_beside_a_wider_one(f):
    x = f.pair(f.input())
    return [f.pair(f.conv(x, kernel=1, strides=[2, 2])), f.pair(f.conv(x, strides=[2, 2]))]


#: Graphs without findings. Most of them keep ONNX Runtime in float.
CLEAN = [v.relu_int8, v.relu_affine, v.clip_inside_range, v.tensorrt_style, v.one_int8_quantizer_two_convs]
CLEAN += [v.two_quantizers, v.unfolded_batch_norm, v.swish, v.leaky_relu, v.graph_output_between, v.gemm_alpha]
CLEAN += [v.reshape_before_conv, v.transpose_before_conv, v.conv_bias_scale, v.gemm_bias_unquantized]
CLEAN += [
    v.conv_transpose,
    functools.partial(v.conv_transpose, axis=None),
    v.matmul_bias_relu,
    v.matmul_bias_unquantized,
]
CLEAN += [v.qlinear_conv, v.residual_float, v.residual_conv_branch, v.flatten_before_gemm, v.per_channel_activation]
CLEAN += [own.product((np.uint8, 0), (np.int8, 0)), own.product((np.int8, 0), (np.uint8, 128))]
CLEAN += [strided_behind_max_pool, strided_beside_a_wider_one]


@pytest.mark.slow
@pytest.mark.parametrize("build", CLEAN)
def test_clean_graph_has_no_findings_and_runs_in_integers(build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert str(check_onnx(path, "openvino")).endswith("no findings")
    report = runtime_report(path, "openvino")
    assert report.integer_share == 1 and not report.fallbacks


def test_a_file_that_would_end_the_process_is_not_loaded(tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *v.gemm_axis_1(file))
    with pytest.raises(ValueError, match=r"would crash on .*matrix-axis.*victim"):
        runtime_report(path, "openvino")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        *(({"reader": name}, True) for name in ("Relu", "LeakyRelu", "GlobalAveragePool", "GlobalMaxPool", "Mul")),
        *(({"op_type": "ConvTranspose", "reader": name}, True) for name in ("Relu", "GlobalAveragePool")),
        ({"bias": 0.0}, True),
        ({"bias": 0.5}, False),
        ({"op_type": "ConvTranspose", "bias": 0.5}, False),
        ({"barrier": True}, False),
        ({"private": True}, False),
        ({"batch": 1}, False),
        *(({"reader": name}, False) for name in ("Sigmoid", "Abs", "Elu", "Tanh", "Softplus", "Transpose")),
    ],
)
def test_scales_are_lost_where_the_rule_is_broken(tmp_path, options, wrong):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *own.shared(**options)(file))
    assert ["lost-scales"] * wrong == [finding.rule for finding in check_onnx(path, "openvino").errors]
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    results = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)
    expected = run(path, [x], optimize=False)
    off = max(np.abs(results[i] - y).max() / np.abs(y).max() for i, y in enumerate(expected))
    assert off > 0.5 if wrong else off < 0.02  # a few sums saturate without VNNI
