"""Each rule on a graph that breaks it, and what ONNX Runtime really makes of that graph."""

import platform

import numpy as np
import pytest
import qdq_violations as v
from qdq_files import QdqFile

from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.checks.onnxruntime import RULES
from tensorflow_quantization.inspection.runtime.runtime_report import runtime_report

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="rules of x86")

#: Rule, graph, and how its victim runs; "" where the runtime is not asked: it would not load the file, or there is no
#: victim.
BROKEN = [
    ("scale", v.negative_scale, ""),
    ("scale", v.computed_scale, "float"),
    ("pair-mismatch", v.pair_mismatch, ""),
    ("opset", v.per_channel_in_opset_12, ""),
    ("weight-axis", v.conv_axis_1, "integer"),
    ("weight-axis", v.gemm_axis_1, "float"),
    ("weight-axis", v.matmul_axis_0, "integer"),
    ("unknown-operator", v.unknown_domain, ""),
    ("unknown-operator", v.unknown_operator, ""),
    ("bias-scale", v.conv_bias_scale, "float"),
    ("gemm-bias-scale", v.gemm_bias_scale, "integer"),
    ("no-quantizers", v.float_model, "float"),
    ("not-quantized", v.float_model, "float"),
    ("not-quantized", v.one_layer_float, "float"),
    ("weights-in-blocks", v.float_input_of_blocks, "float"),
    ("float-input", v.float_input, "float"),
    ("float-weights", v.float_weights, "integer"),
    ("input-adjacent", v.flatten_before_gemm, "float"),
    ("input-adjacent", v.mirrored_padding, "float"),
    ("weight-adjacent", v.reshape_before_conv, "float"),
    ("activation-dtype", v.int16_activations, "float"),
    ("weight-dtype", v.int16_weights, "float"),
    ("scale-dtype", v.float16, "float"),
    ("per-channel-activation", v.per_channel_activation, "float"),
    ("no-integer-kernel", v.conv_transpose, "float"),
    ("gemm-form", v.gemm_alpha, "float"),
    ("gemm-form", v.gemm_matrix_bias, "float"),
    ("graph-output", v.graph_output_between, "float"),
    ("several-readers", v.two_quantizers, "float"),
    ("swish", v.swish, "float"),
    ("batch-normalization", v.unfolded_batch_norm, "float"),
    ("activation", v.leaky_relu, "float"),
    ("clipping", v.relu_int8, "float"),
    ("clipping", v.relu_affine, "float"),
    ("clipping", v.clip_inside_range, "float"),
    ("clipping-behind-add", v.add_relu_affine, "float"),
    ("matmul-bias-relu", v.matmul_bias_relu, "float"),
    ("no-output-quantizer", v.tensorrt_style, "float"),
    ("no-output-quantizer", v.matmul_bias_unquantized, "float"),
    ("no-output-quantizer", v.gemm_bias_unquantized, "float"),
    ("shared-int8", v.one_int8_quantizer_two_convs, "float"),
    ("shared-int8", v.int8_output_two_convs, "float"),
    ("partly-quantized", v.one_sided_add, "float"),
    ("float-operand", v.add_constant, "float"),
    ("one-sided", v.pooling_unquantized, "float"),
    *(("float-operator", v.quantized(name), "float") for name in ("Tanh", "HardSwish", "Elu", "GlobalMaxPool", "Relu")),
    ("float-operator", v.quantized("ReduceMean", axes=[2, 3]), "float"),
    ("int8-activations", v.int8_activations, ""),
]


@pytest.mark.parametrize(("rule", "build", "ran"), BROKEN)
def test_rule_is_found_and_the_runtime_agrees(rule, build, ran, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    found = [finding for finding in check_onnx(path, "onnxruntime") if finding.rule == rule]
    assert found
    if ran:
        node = runtime_report(path, "onnxruntime")["victim"]
        assert node.ran == ran
        if ran == "float" and found[0].keeps_float:
            assert rule in node.reason


def test_every_rule_has_a_graph_that_breaks_it():
    assert {rule.id for rule in RULES} == {rule for rule, _, _ in BROKEN}


def conv_relu(f):
    return [f.pair(f.op("Relu", f.conv(f.pair(f.input()))))]


def conv_clip(f):
    bounds = [f.constant(np.float32(bound)) for bound in (0, 6)]
    return [f.pair(f.op("Clip", f.conv(f.pair(f.input())), *bounds), scale=6 / 255)]


def one_quantizer_two_convs(f):
    x = f.pair(f.input())
    return [f.pair(f.conv(x), zero=128), f.pair(f.conv(x), zero=128)]


def residual_block(f):
    x = f.pair(f.input())
    y = f.pair(f.conv(x), zero=128)
    return [f.pair(f.op("Relu", f.op("Add", x, y)))]


def quantized_swish(f):
    y = f.pair(f.conv(f.pair(f.input())), zero=128)
    return [f.pair(f.op("Mul", y, f.pair(f.op("Sigmoid", y), scale=1 / 256)), zero=10)]


def matmul_alone(f):
    return [f.op("MatMul", f.pair(f.input((1, 5, 16))), f.weights(16, 12, axis=1))]


def matmul_bias(f):
    return [f.pair(f.op("Add", matmul_alone(f)[0], f.floats(12)), zero=128)]


def matmul_bias_of_a_dynamic_batch(f):
    y = f.op("MatMul", f.pair(f.input(("batch", 5, 16))), f.weights(16, 12, axis=1))
    return [f.op("Add", y, f.floats(12))]


def gemm_relu(f):
    return [f.pair(f.op("Relu", v.dense(f, f.pair(f.input((1, 16))))))]


def gemm_with_its_integer_bias(f):
    bias = v.integer_bias(f, 12, v.bias_scales(12))
    return [f.op("Gemm", f.pair(f.input((1, 16))), f.weights(12, 16), bias, transB=1)]


def conv_with_its_integer_bias(f):
    bias = v.integer_bias(f, 8, v.bias_scales(8))
    return [f.pair(f.op("Conv", f.pair(f.input()), f.weights(8, 8, 3, 3), bias))]


def quantizer_behind_max_pool(f):
    return [f.pair(f.op("MaxPool", f.op("Relu", f.conv(f.pair(f.input()))), kernel_shape=[2, 2]))]


def transposed_weights(f):
    weights = f.op("Transpose", f.weights(12, 16), perm=[1, 0])
    return [f.pair(f.op("MatMul", f.pair(f.input((1, 5, 16))), weights))]


def padding_before_conv(f):
    return [f.pair(f.conv(f.op("Pad", f.pair(f.input()), f.ints(0, 0, 1, 1, 0, 0, 1, 1))))]


CLEAN = [conv_relu, conv_clip, one_quantizer_two_convs, residual_block, quantized_swish, matmul_alone, matmul_bias]
CLEAN += [matmul_bias_of_a_dynamic_batch, gemm_relu, gemm_with_its_integer_bias, conv_with_its_integer_bias]
CLEAN += [quantizer_behind_max_pool, transposed_weights, padding_before_conv, v.uint8_weights]


@pytest.mark.slow
@pytest.mark.parametrize("build", CLEAN)
def test_clean_graph_has_no_findings_and_runs_in_integers(build, tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert str(check_onnx(path, "onnxruntime")).endswith("no findings")
    report = runtime_report(path, "onnxruntime")
    assert report.integer_share == 1 and not report.fallbacks


def test_int8_activations_with_one_reader_run_in_integers(tmp_path):
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *v.int8_activations(file))
    report = check_onnx(path, "onnxruntime")
    assert report.ok and report.rules == ["int8-activations"]
    assert runtime_report(path, "onnxruntime").integer_share == 1


@pytest.mark.parametrize("build", [v.gemm_bias_scale, v.conv_axis_1, lambda f: v.matmul_axis_0(f, 16)])
def test_errors_of_scales_are_wrong_numbers(build, tmp_path):
    # What makes these rules errors: the same file computes something else with the runtime's optimizations.
    file = QdqFile()
    path = file.save(tmp_path / "model.onnx", *build(file))
    assert check_onnx(path, "onnxruntime").errors
    results = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).uniform(0, 10, session.get_inputs()[0].shape).astype(np.float32)
        results.append(session.run(None, {"x": x})[0])
    assert np.abs(results[0] - results[1]).max() > 0.1 * np.abs(results[0]).max()
