"""TensorRT for RTX: what runs in which dtype, files that it refuses, and a log in another format."""

import random
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import onnx
import pytest
import qdq_violations as v
from keras import layers
from mutations import mutate_graph
from onnx import TensorProto, helper, numpy_helper
from qdq_files import QdqFile

from tensorflow_quantization import QuantizationSpec, calibrate, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.inspection.runtime import tensorrt_build, tensorrt_engine

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")

INT8 = {"dtype": np.int8}
MUTATIONS = 8


def network():
    """A first convolution, a residual sum, a depthwise and a pointwise convolution, pools, a Dense."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Add(name="add")([x, layers.Conv2D(8, 3, padding="same", name="branch")(x)])
    x = layers.MaxPooling2D(2, name="pool")(layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x))
    x = layers.Conv2D(16, 1, activation="relu", name="pointwise")(x)
    return keras.Model(inputs, layers.Dense(5, name="scores")(layers.GlobalAveragePooling2D(name="mean")(x)))


def exported(path, float_layer=None, **options):
    """The file of the quantized network; `float_layer` is not quantized."""
    spec = QuantizationSpec()
    if float_layer is not None:
        spec.add(float_layer, quantize_input=False, quantize_weight=False)
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    model = calibrate(quantize_model(network(), quantization_spec=spec, target="tensorrt"), images, verbose=0)
    return export_onnx(model, path, **options)


def saved(path, build):
    file = QdqFile()
    return file.save(path, *build(file))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_our_own_file_runs_in_int8(precision, tmp_path):
    report = runtime_report(exported(tmp_path / "m.onnx", precision=precision), "tensorrt")
    assert report.integer_share == 1.0 and report.fallbacks == []
    assert report.precisions == {"Int8": 1.0}
    assert [node.op_type for node in report.multiplying] == ["Conv"] * 4 + ["MatMul"]
    assert report["quant_pool/MaxPool"].ran == "integer" and report["quant_pool/MaxPool"].kernel == "maxpool (Int8)"
    assert report["relu/Relu"].ran == "fused"
    assert report.kernels["correlation"] == 4 and report.kernels["gemm"] == 1
    assert ("quant_branch/Conv", "quant_add/Add") in [nodes[:2] for nodes in report.fused]
    assert report.executed[0].bytes["Float"] == 4 * 16 * 16 * 3  # the input of one sample
    assert report.bytes["Int8"] == sum(kernel.bytes.get("Int8", 0) for kernel in report.executed)
    assert "kernels read and write" in str(report) and "100.0 %" in str(report)


def test_a_float_layer_runs_in_float_and_the_share_is_without_it(tmp_path):
    report = runtime_report(exported(tmp_path / "m.onnx", float_layer="branch"), "tensorrt")
    (node,) = report.fallbacks
    assert (node.name, node.ran, node.precision) == ("branch/Conv", "float", "Float")
    assert "not-quantized" in node.reason and node.fix
    assert node.macs == 16 * 16 * 8 * 8 * 9
    assert report.integer_share == pytest.approx(1 - node.macs / report.macs)
    assert report.precisions == pytest.approx({"Int8": report.integer_share, "Float": 1 - report.integer_share})


def float8(f, x):
    scale = f.constant(np.float32(0.05))
    zero = f.constant(helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    return f.op("DequantizeLinear", f.op("QuantizeLinear", x, scale, zero), scale, zero)


def fp8(f):
    f.opset = 19
    return [f.op("MatMul", float8(f, f.input((1, 64, 64))), float8(f, f.floats(64, 64)), name="victim")]


def int4_weights(f):
    f.opset = 21
    integers = helper.make_tensor("w", TensorProto.INT4, [128, 64], np.ones(128 * 64, np.int8))
    scales = f.constant(np.full((2, 64), 0.1, np.float32))
    w = f.op("DequantizeLinear", f.constant(integers), scales, axis=0, block_size=64)
    return [f.op("MatMul", f.input((1, 8, 128)), w, name="victim")]


def half(f):
    w = f.constant(np.ones((8, 8, 3, 3), np.float16))
    return [f.op("Cast", f.op("Conv", f.op("Cast", f.input(), to=TensorProto.FLOAT16), w, name="victim"), to=1)]


def bfloat16(f):
    f.opset = 22
    w = f.constant(numpy_helper.from_array(np.ones((64, 64), ml_dtypes.bfloat16)))
    x = f.op("Cast", f.input((8, 64)), to=TensorProto.BFLOAT16)
    return [f.op("Cast", f.op("MatMul", x, w, name="victim"), to=1)]


def transposed(f):
    x = f.pair(f.input(), **INT8)
    return [f.op("ConvTranspose", x, f.weights(8, 8, 2, 2, axis=1), name="victim", strides=[2, 2])]


def weights_alone(f):
    return [f.op("MatMul", f.input((1, 5, 16)), f.weights(16, 12, axis=1), name="victim")]


def input_alone(f):
    return [f.op("MatMul", f.pair(f.input((8, 64)), **INT8), f.floats(64, 64), name="victim")]


def product_as_sum(f):
    return [f.op("MatMul", f.input((1, 1)), f.floats(1, 12), name="victim")]


def removed(f):
    f.op("MatMul", f.input((1, 8)), f.floats(8, 8), name="victim")
    return [f.op("Relu", "x")]


@pytest.mark.parametrize(
    ("build", "ran", "kernel", "reason"),
    [
        (fp8, "float", "gemm (FP8)", "it is quantized to FP8"),
        (int4_weights, "float", "runtime_fusion (Float, weights Int4)", "only its weights are quantized, to Int4"),
        (half, "float", "correlation (Half)", "not-quantized"),
        (bfloat16, "float", "runtime_fusion (BFloat16)", "not-quantized"),
        (transposed, "float", "deconv (Float)", "no integer kernel for transposed convolutions"),
        (weights_alone, "float", "runtime_fusion (Float, weights Int8)", "half-quantized"),
        (input_alone, "float", "runtime_fusion (Float)", "half-quantized"),
        (product_as_sum, "float", "kgen (Float)", "not-quantized"),
        (removed, "unknown", "", "no kernel names it"),
    ],
)
def test_the_dtype_of_a_product_is_that_of_its_kernel(build, ran, kernel, reason, tmp_path):
    report = runtime_report(saved(tmp_path / "m.onnx", build), "tensorrt")
    node = report["victim"]
    assert (node.ran, node.kernel) == (ran, kernel) and reason in node.reason
    assert report.integer_share == 0


def attention(f, probability=True):
    """Two products with a softmax between them, on quantized queries, keys and values."""
    query, key, value = (f.pair(f.input((1, 4, 128, 64), name), **INT8) for name in ("query", "key", "value"))
    scores = f.op("MatMul", query, f.op("Transpose", key, perm=[0, 1, 3, 2]), name="scores")
    weights = f.op("Softmax", scores, axis=-1)
    weights = f.pair(weights, scale=1 / 127, **INT8) if probability else weights
    return [f.pair(f.op("MatMul", weights, value, name="mixed"), **INT8)]


def test_a_fused_attention_runs_in_int8_if_all_its_factors_are_quantized(tmp_path):
    report = runtime_report(saved(tmp_path / "m.onnx", attention), "tensorrt")
    assert [node.kernel for node in report.multiplying] == ["mha (Int8)"] * 2 and report.integer_share == 1
    report = runtime_report(saved(tmp_path / "m.onnx", lambda f: attention(f, probability=False)), "tensorrt")
    assert [(node.ran, node.precision) for node in report.multiplying] == [("integer", "Int8"), ("float", "Float")]


def test_products_of_a_recurrent_layer_whose_first_state_is_a_constant(tmp_path):
    inputs = keras.Input((3, 8, 8, 3))
    model = keras.Model(inputs, layers.ConvLSTM2D(4, 3)(inputs))
    report = runtime_report(export_onnx(model, tmp_path / "m.onnx"), "tensorrt")
    assert report.precisions == {"Float": 1.0} and len(report.multiplying) == 6  # two in each step


def average(f, **attributes):
    x = f.pair(f.input(), **INT8)
    return [f.pair(f.op("AveragePool", x, name="victim", kernel_shape=[2, 2], strides=[2, 2], **attributes), **INT8)]


def test_an_average_pool_says_what_keeps_it_in_float(tmp_path):
    path = tmp_path / "m.onnx"
    assert runtime_report(saved(path, lambda f: average(f, count_include_pad=1)), "tensorrt")["victim"].ran == "integer"

    def input_only(f):
        x = f.pair(f.input(), **INT8)
        return [f.op("AveragePool", x, name="victim", kernel_shape=[2, 2], strides=[2, 2])]

    node = runtime_report(saved(path, input_only), "tensorrt")["victim"]
    assert node.ran == "float" and "quantizers of one scale" in node.reason and "count_include_pad" in node.fix


def test_compute_capability_decides_what_is_built(tmp_path):
    path = saved(tmp_path / "m.onnx", fp8)
    assert runtime_report(path, "tensorrt", compute_capability="8.9")["victim"].precision == "FP8"
    with pytest.raises(
        ValueError, match=r"compute capability 8\.6 have no kernels for FP8, which needs 8\.9"
    ) as caught:
        runtime_report(path, "tensorrt", compute_capability=8.6)
    assert "'dq'" in str(caught.value) or "'dequantizelinear" in str(caught.value)  # the name in the file
    with pytest.raises(RuntimeError, match=r"does not build it: .*sm86.*fp8"):  # what our error is held against
        tensorrt_engine.build(path, {}, "8.6")
    with pytest.raises(ValueError, match=r"compute_capability must be one of '7\.5', '8\.0'.*got '3\.5'"):
        runtime_report(path, "tensorrt", compute_capability="3.5")


def test_turing_has_no_int8_convolution(tmp_path):
    def build(f):
        return [f.pair(f.conv(f.pair(f.input(), **INT8), name="victim"), **INT8)]

    path = saved(tmp_path / "m.onnx", build)
    assert runtime_report(path, "tensorrt", compute_capability="8.0")["victim"].ran == "integer"
    node = runtime_report(path, "tensorrt", compute_capability="7.5")["victim"]
    assert node.ran == "float" and "7.5" in node.reason and "8.0" in node.fix


def test_turing_needs_a_file_in_float16(tmp_path):
    with pytest.raises(ValueError, match=r"FP32 GEMM is not supported[\s\S]*precision='float16'"):
        runtime_report(exported(tmp_path / "m.onnx"), "tensorrt", compute_capability="7.5")
    report = runtime_report(exported(tmp_path / "m.onnx", precision="float16"), "tensorrt", compute_capability="7.5")
    assert report.precisions.keys() == {"Half", "Int8"}


def test_an_engine_is_built_for_the_shapes(tmp_path):
    def build(f):
        x = f.pair(f.input(("batch", "length", 64)), **INT8)
        return [f.op("MatMul", x, f.weights(64, 32, axis=1), name="victim")]

    path = saved(tmp_path / "m.onnx", build)
    with pytest.raises(ValueError, match=r"Input 'x' has the shape \['batch', 'length', 64\]: pass input_shapes"):
        runtime_report(path, "tensorrt")
    report = runtime_report(path, "tensorrt", input_shapes=(2, 7, 64))
    assert report.integer_share == 1 and report.macs == 2 * 7 * 64 * 32
    assert report.executed[0].bytes == {"Float": 4 * 2 * 7 * 64, "Int8": 2 * 7 * 64}


def test_a_file_that_is_not_parsed_names_the_layer(tmp_path):
    path = exported(tmp_path / "m.onnx")
    proto = onnx.load(path)
    (node,) = (node for node in proto.graph.node if node.name == "quant_pointwise/Conv")
    node.op_type, node.domain = "Secret", "my.company"
    proto.opset_import.append(helper.make_opsetid("my.company", 1))
    onnx.save(proto, path)
    with pytest.raises(ValueError, match=r"does not parse the file: node 'quant_pointwise/Conv' \(Secret\): .*Plugin"):
        runtime_report(path, "tensorrt")


def test_a_bias_in_int32_is_refused_without_a_word_about_the_missing_gpu(tmp_path):
    def build(f):
        x = f.pair(f.input(), **INT8)
        return [f.op("Conv", x, f.weights(8, 8, 3, 3), v.integer_bias(f, 8, v.bias_scales(8)))]

    with pytest.raises(ValueError, match="has type Int32 but must have type") as caught:
        runtime_report(saved(tmp_path / "m.onnx", build), "tensorrt")
    assert "Cuda" not in str(caught.value)


def test_an_opset_that_onnx_does_not_know_is_refused(tmp_path):
    path = exported(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    onnx.save(proto, path)
    with pytest.raises(ValueError, match=r"its opset \d+ is newer than \d+, the newest that the installed onnx knows"):
        runtime_report(path, "tensorrt")


def test_missing_external_data_is_named(tmp_path):
    path = exported(tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    Path(tmp_path, "m.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"in 'm\.data', and there is no such file"):
        runtime_report(path, "tensorrt")


def test_changed_files_are_built_or_refused(tmp_path):
    path = tmp_path / "m.onnx"
    data = Path(saved(path, lambda f: [f.pair(f.op("Relu", f.conv(f.pair(f.input(), **INT8))), **INT8)])).read_bytes()
    for seed in range(MUTATIONS):
        path.write_bytes(mutate_graph(data, random.Random(seed)))
        try:
            str(runtime_report(path, "tensorrt"))
        except Exception as error:
            assert type(error) in (ValueError, FileNotFoundError), f"seed {seed}: {error!r}"


@pytest.fixture
def convolution(tmp_path):
    return saved(tmp_path / "m.onnx", lambda f: [f.pair(f.conv(f.pair(f.input(), **INT8), name="victim"), **INT8)])


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"signal 9\. Signal 9 means that memory did not"),
        ("raise MemoryError('no memory')", "its builder failed: MemoryError: no memory"),
        # What the builder answers if it cannot hold the weights of a file.
        (
            "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text("
            """'{"unparsed": [["", "", "std::bad_alloc"]], "errors": [], "layers": []}')""",
            "it does not parse the file: memory did not suffice",
        ),
    ],
)
def test_a_builder_that_dies_leaves_the_process_alive(script, error, convolution, tmp_path, monkeypatch):
    (tmp_path / "builder.py").write_text(script)
    monkeypatch.setattr(tensorrt_build, "__file__", str(tmp_path / "builder.py"))
    with pytest.raises(ValueError, match=error):
        runtime_report(convolution, "tensorrt")


def test_a_file_that_is_not_built_in_time_is_refused(convolution, monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "_MOST_SECONDS", 0.01)  # the process does not even start in this time
    with pytest.raises(ValueError, match=r"it did not build the file in 0\.01 s, and was stopped"):
        runtime_report(convolution, "tensorrt")


@pytest.fixture
def lines(convolution):
    """The lines of the log for the file of a convolution."""
    return tensorrt_engine.build(convolution, {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LayerType: correlation", "LayerKind: correlation"),
        ("Datatype: Int8", "Type: Int8"),
        ("Datatype: Int8", "Datatype: Int7"),
        ("Dimensions: [1,8", "Dimensions: [-1,8"),
        ("Inputs: [", "Inputs: <"),
        ("Outputs: [", "Results: ["),
        (", Metadata: ", ", Layers: "),
        ("Name: victim", "Victim: victim"),
    ],
)
def test_a_log_in_another_format_is_an_error(old, new, lines):
    (line,) = (line for line in lines if "LayerType: correlation" in line)
    assert tensorrt_engine._kernel(line).integer is True
    assert old in line
    with pytest.raises(RuntimeError, match="this version writes its log in another format"):
        tensorrt_engine._kernel(line.replace(old, new))


def test_names_of_tensors_do_not_disturb_the_reader(tmp_path):
    name = "x, Dimensions: [1], Datatype: Float, y"
    report = runtime_report(
        saved(tmp_path / "m.onnx", lambda f: [f.conv(f.pair(f.input(name=name), **INT8), name="victim")]), "tensorrt"
    )
    assert report.integer_share == 1 and report.executed[0].bytes == {"Float": 4 * 512, "Int8": 512}
