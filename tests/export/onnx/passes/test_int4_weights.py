"""INT4 weights: when they are written, and that runtimes compute the same integers with them."""

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from keras import layers
from onnx_graphs import RNG, Graph
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.export.onnx.passes.common.int4_weights import int4_weights
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES

INT4 = onnx.TensorProto.INT4


def weight(g, shape, highest, axis=1):
    integers = RNG.integers(-highest, highest + 1, shape).astype(np.int8)
    scales = RNG.uniform(0.01, 0.02, shape[axis]).astype("float32")
    return g.op("DequantizeLinear", integers, scales, np.zeros(shape[axis], np.int8), axis=axis)


def stored(g):
    return [v.const_value.dtype for v in g.builder.graph.initializers.values() if v.const_value.size > 100]


@pytest.mark.parametrize("highest", [1, 3, 7])
def test_weights_of_2_to_4_bits_are_stored_in_half_the_bytes(tmp_path, highest):
    g = Graph(21, opset=21)  # an odd number of elements: half a byte remains
    counts = g.check(tmp_path, g.op("MatMul", g.x, weight(g, (21, 11), highest)), int4_weights, 0)
    assert counts["Cast"] == 1
    assert stored(g) == [ir.DataType.INT4]


def test_two_readers_share_one_weight(tmp_path):
    g = Graph(20, opset=21)
    first = weight(g, (20, 12), 7)
    integers, *parameters = first.producer().inputs
    second = g.op("DequantizeLinear", integers, *parameters, axis=1)
    counts = g.check(tmp_path, [g.op("MatMul", g.x, first), g.op("MatMul", g.x, second)], int4_weights, 0)
    assert counts["Cast"] == 1
    assert stored(g) == [ir.DataType.INT4]


@pytest.mark.parametrize(
    ("highest", "shape", "opset", "why"),
    [
        (8, (20, 12), 21, "more than 4 bits"),
        (0, (20, 12), 21, "all zero"),
        (7, (20, 12), 20, "older than 21"),
        (7, (4, 3), 21, "takes more bytes"),
    ],
)
def test_other_weights_stay_int8(tmp_path, highest, shape, opset, why):
    g = Graph(shape[0], opset=opset)
    counts = g.check(tmp_path, g.op("MatMul", g.x, weight(g, shape, highest)), int4_weights, 0)
    assert not counts["Cast"]
    assert why in g.log


def convolutions():
    inputs = keras.Input((8, 8, 64))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(128, 3, padding="same", use_bias=False)(inputs)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(128, 1, groups=2)(x))
    return randomize(keras.Model(inputs, layers.Dense(64)(x)))


def products():
    inputs = keras.Input((6, 128))
    x = layers.MultiHeadAttention(4, 32)(inputs, inputs)
    return randomize(keras.Model(inputs, layers.Dense(128)(layers.Dense(256, activation="relu")(x))))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("make", "weights", "bits"), [(convolutions, 4, 4), (products, 6, 2)])
def test_a_runtime_computes_the_same_in_the_same_kernels(tmp_path, runtime, make, weights, bits):
    pytest.importorskip(runtime)
    model = make()
    x = RNG.normal(size=(4, *model.input_shape[1:])).astype("float32")
    quantized = quantize_model(model, target=runtime, weight_bits=bits)
    calibrate(quantized, x, verbose=0)
    files = [export_onnx(quantized, tmp_path / f"{opset}.onnx", opset=opset, verify_with=x) for opset in (20, None)]
    int8, int4 = (onnx.load(path) for path in files)
    onnx.checker.check_model(int4, full_check=True)
    assert (stored_as(INT4, int8), stored_as(INT4, int4)) == (0, weights)
    assert files[1].stat().st_size <= 0.6 * files[0].stat().st_size  # the rest is scales, biases, nodes and names
    before, after = (runtime_report(path, runtime) for path in files)
    assert before.integer_share == after.integer_share == 1
    assert before.kernels == after.kernels
    results = [RUNTIMES[runtime].load(path, ())({int8.graph.input[0].name: x})[0] for path in files]
    np.testing.assert_array_equal(*results)
    findings = [[(f.rule, f.nodes) for f in check_onnx(path, runtime)] for path in files]
    assert findings[0] == findings[1]


@pytest.mark.parametrize("target", [None, "tensorrt"])
def test_files_for_other_runtimes_hold_int8(tmp_path, target):
    model = convolutions()
    quantized = quantize_model(model, target=target, weight_bits=4)
    calibrate(quantized, RNG.normal(size=(4, 8, 8, 64)).astype("float32"), verbose=0)
    proto = onnx.load(export_onnx(quantized, tmp_path / "m.onnx"))
    assert stored_as(INT4, proto) == 0
    assert proto.opset_import[0].version < 21


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_float16_file_has_int4_weights_too(tmp_path, runtime):
    pytest.importorskip(runtime)
    quantized = quantize_model(convolutions(), target=runtime, weight_bits=4)
    x = RNG.normal(size=(4, 8, 8, 64)).astype("float32")
    calibrate(quantized, x, verbose=0)
    proto = onnx.load(export_onnx(quantized, tmp_path / "m.onnx", precision="float16", verify_with=x))
    onnx.checker.check_model(proto, full_check=True)
    assert stored_as(INT4, proto) == 4


def test_reductions_have_the_form_of_the_opset_of_int4_weights(tmp_path):
    inputs = keras.Input((8, 64))
    x = keras.ops.mean(layers.Dense(64)(inputs), axis=1)
    model = randomize(keras.Model(inputs, x))
    quantized = quantize_model(model, target="onnxruntime", weight_bits=4)
    x = RNG.normal(size=(4, 8, 64)).astype("float32")
    calibrate(quantized, x, verbose=0)
    proto = onnx.load(export_onnx(quantized, tmp_path / "m.onnx", verify_with=x))
    (mean,) = (node for node in proto.graph.node if node.op_type == "ReduceMean")
    assert proto.opset_import[0].version == 21 and len(mean.input) == 2


def stored_as(dtype, proto):
    return sum(tensor.data_type == dtype for tensor in proto.graph.initializer)
