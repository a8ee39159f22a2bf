"""Weights in blocks in files: the integers of Keras, the bytes, and the kernels that runtimes use for them."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.export import ExportError, OpsetError, VerificationError
from tensorflow_quantization.export.onnx import quantized_weights
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES
from tensorflow_quantization.model.weights import merged_array
from tensorflow_quantization.wrappers import wrappers_in

RNG = np.random.default_rng(0)
STORED = {4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8}


def products(width=64):
    inputs = keras.Input((6, width))
    x = layers.MultiHeadAttention(4, 16, name="attention")(inputs, inputs)
    x = layers.Dense(2 * width, activation="relu", name="up")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, width), bias_axes="d", name="down")(x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="scores")(x)))


def images():
    """A convolution, a normalization that is folded into weights in blocks, and a flattened image."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(inputs))
    x = layers.BatchNormalization()(layers.Dense(32, use_bias=False)(x))
    model = randomize(keras.Model(inputs, layers.Dense(5)(layers.ReLU()(x))))
    gamma = model.layers[4].gamma
    gamma.assign(np.where(np.arange(32) % 2, 1, -1) * gamma.numpy())
    return model


def data(model, count=4):
    return RNG.normal(size=(count, *model.input_shape[1:])).astype("float32")


def quantized(model, x, target, **arguments):
    return calibrate(quantize_model(model, target=target, **arguments), x, verbose=0)


def weights_in_blocks(proto):
    """The integers, the scales and the block size of each DequantizeLinear with blocks."""
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        attributes = {a.name: a.i for a in node.attribute}
        if "block_size" in attributes:
            assert attributes["axis"] == 0
            yield *(arrays[name] for name in node.input), attributes["block_size"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_a_file_holds_the_integers_of_keras(tmp_path, target, bits):
    model = products()
    x = data(model)
    made = quantized(model, x, target, weight_bits=bits, block_size=32)
    proto = onnx.load(export_onnx(made, tmp_path / "m.onnx", verify_with=x))
    onnx.checker.check_model(proto, full_check=True)
    wrappers = [w for call in made.layers for w in wrappers_in(call) if w.weight_quantizers]
    found = list(weights_in_blocks(proto))
    assert len(found) == len(wrappers) == 7
    assert sum(t.data_type == STORED[bits] for t in proto.graph.initializer) == 7
    kernels = [(w.weight_quantizers["kernel"], merged_array(w.layer, "kernel")) for w in wrappers]
    by_integers = {quantizer.integers(kernel).tobytes(): (quantizer, kernel) for quantizer, kernel in kernels}
    for integers, scales, size in found:
        quantizer, kernel = by_integers[integers.astype(np.int8).tobytes()]  # all kernels have their inputs first
        assert size == 32
        assert scales.shape == (len(integers) // 32, integers.shape[1])
        np.testing.assert_array_equal(scales.ravel(), quantizer.scales(kernel))
        expanded = integers.astype("float32") * np.repeat(scales, 32, axis=0)
        np.testing.assert_array_equal(expanded.ravel(), quantizer.dequantized(kernel).ravel())


def test_onnxruntime_multiplies_by_them_in_one_kernel(tmp_path):
    model = products()
    x = data(model)
    path = export_onnx(quantized(model, x, "onnxruntime", weight_bits=4, block_size=32), tmp_path / "m.onnx")
    report = runtime_report(path, "onnxruntime")
    assert report.kernels["MatMulNBits"] == 7
    assert not check_onnx(path, "onnxruntime").errors
    assert {f.severity for f in check_onnx(path, "onnxruntime")} == {"info"}


def test_openvino_multiplies_by_the_integers(tmp_path):
    pytest.importorskip("openvino")
    model = products()
    x = data(model)
    made = quantized(model, x, "openvino", weight_bits=4, block_size=32)
    path = export_onnx(made, tmp_path / "m.onnx", verify_with=x)
    report = runtime_report(path, "openvino")
    assert sum(node.kernel == "FullyConnected (i4)" for node in report if node.name.endswith("/MatMul")) == 7
    assert {f.severity for f in check_onnx(path, "openvino")} == {"info"}


def test_tensorrt_builds_kernels_with_int4_weights(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    model = products(128)
    x = data(model)
    made = quantized(model, x, "tensorrt", weight_bits=4, block_size=64)
    path = export_onnx(made, tmp_path / "m.onnx", verify_with=x)
    report = runtime_report(path, "tensorrt", input_shapes=(8, 6, 128))
    assert report["quant_up/MatMul"].kernel == "runtime_fusion (Float, weights Int4)"
    assert not [f for f in check_onnx(path, "tensorrt") if f.severity != "info"]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_file_of_dense_layers_shrinks_to_0_6(tmp_path, target):
    pytest.importorskip(target)
    inputs = keras.Input((256,))
    x = layers.Dense(256, activation="relu")(layers.Dense(256, activation="relu")(inputs))
    model = randomize(keras.Model(inputs, x))
    sizes = [
        export_onnx(quantized(model, data(model), target, **arguments), tmp_path / f"{i}.onnx").stat().st_size
        for i, arguments in enumerate([{}, {"weight_bits": 4, "block_size": 64}])
    ]
    assert sizes[1] <= 0.6 * sizes[0]


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino"])
def test_a_flattened_image_and_a_folded_normalization(tmp_path, target, layout):
    model = images()
    x = data(model)
    made = quantized(model, x, target, weight_bits=4, block_size=16)
    proto = onnx.load(export_onnx(made, tmp_path / "m.onnx", input_layout=layout, verify_with=x))
    assert len(list(weights_in_blocks(proto))) == 2
    assert not {"BatchNormalization", "Mul"} & {node.op_type for node in proto.graph.node}


def test_onnxruntime_takes_a_shorter_last_block(tmp_path):
    inputs = keras.Input((40,))
    model = randomize(keras.Model(inputs, layers.Dense(6)(inputs)))
    x = data(model)
    path = export_onnx(quantized(model, x, "onnxruntime", block_size=16), tmp_path / "m.onnx", verify_with=x)
    ((integers, scales, _),) = weights_in_blocks(onnx.load(path))
    assert (integers.shape, scales.shape) == ((40, 6), (3, 6))
    assert set(runtime_report(path, "onnxruntime").kernels) == {"MatMulNBits"}


def test_a_runtime_of_whole_blocks_refuses_a_shorter_one_before_any_work(tmp_path):
    inputs = keras.Input((40,))
    model = quantize_model(keras.Model(inputs, layers.Dense(6, name="d")(inputs)), target="onnxruntime", block_size=16)
    with pytest.raises(ExportError, match="quant_d: 40 inputs in blocks of 16"):
        export_onnx(model, tmp_path / "m.onnx", target="openvino")
    assert not list(tmp_path.iterdir())


def test_an_older_opset_is_refused(tmp_path):
    inputs = keras.Input((32,))
    model = quantize_model(keras.Model(inputs, layers.Dense(6)(inputs)), target="onnxruntime", block_size=16)
    with pytest.raises(OpsetError, match="opset 21 or newer, got opset=20"):
        export_onnx(model, tmp_path / "m.onnx", opset=20)


def test_a_float16_file_has_float16_scales(tmp_path):
    model = products()
    x = data(model)
    made = quantized(model, x, "onnxruntime", weight_bits=4, block_size=32)
    proto = onnx.load(export_onnx(made, tmp_path / "m.onnx", precision="float16", verify_with=x))
    assert {scales.dtype for _, scales, _ in weights_in_blocks(proto)} == {np.dtype("float16")}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_verification_finds_a_changed_scale(tmp_path, runtime, monkeypatch):
    pytest.importorskip(runtime)
    per_block = quantized_weights._per_block
    monkeypatch.setattr(quantized_weights, "_per_block", lambda *args: per_block(*args)[::-1].copy())
    model = products()
    x = data(model)
    made = quantized(model, x, runtime, weight_bits=4, block_size=32)
    with pytest.raises(VerificationError, match="disagree"):
        export_onnx(made, tmp_path / "m.onnx", verify_with=x)
