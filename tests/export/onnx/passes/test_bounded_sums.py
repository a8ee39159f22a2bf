"""Residual sums in OpenVINO: which of them get the quantizer that changes nothing, and that it does change nothing."""

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from keras import layers
from onnx_graphs import Graph
from onnx_models import run
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.export.onnx.metadata import HINT
from tensorflow_quantization.export.onnx.passes.openvino.bounded_sums import bounded_sums
from tensorflow_quantization.export.verification.onnx_runtimes import without_quantizers

openvino = pytest.importorskip("openvino")

SHAPE = (16, 16, 8)


def conv(x, size=3, **kwargs):
    return layers.Conv2D(16, size, padding="same", **kwargs)(x)


def branch(x, **kwargs):
    return conv(conv(x, activation="relu"), **kwargs)


def added(*parts):
    return layers.ReLU()(layers.Add()(parts))


def preactivated(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


def residual_v2(x):
    before = preactivated(x)
    x = layers.Add()([conv(before, 1), branch(before)])
    x = layers.Add()([x, branch(preactivated(x))])
    x = layers.Add()([layers.MaxPooling2D(1, strides=2)(x), branch(preactivated(x), strides=2)])
    return preactivated(x)


def unfused_before(x):
    x = layers.Add()([x, conv(x)])
    return layers.Add()([x, conv(preactivated(x))])


#: Name to a part of a model, and how many of its sums OpenVINO takes into a convolution where shapes are fixed.
SUMS = {
    "identity": (lambda x: added(x, branch(x)), 1),
    "no activation": (lambda x: layers.Add()([x, branch(x)]), 1),
    "relu6": (lambda x: layers.ReLU(6.0)(layers.Add()([x, branch(x)])), 1),
    "depthwise": (lambda x: added(x, layers.DepthwiseConv2D(3, padding="same")(conv(x, activation="relu"))), 1),
    "projection": (lambda x: added(conv(x, 1), branch(x)), 1),
    "projection behind": (lambda x: added(branch(x), conv(x, 1)), 1),
    "pooled": (lambda x: added(layers.MaxPooling2D(2)(x), conv(x, strides=2)), 1),
    "two blocks": (lambda x: (lambda y: added(y, branch(y)))(added(x, branch(x))), 2),
    "version 2": (residual_v2, 3),
    # What follows has none: OpenVINO computes the sum apart, and would round before.
    "of its own input": (lambda x: added(x, conv(x)), 0),
    "read again": (lambda x: (lambda y: added(x, branch(y)))(added(x, branch(x))), 1),
    "joined later": (lambda x: layers.Concatenate()([x, conv(added(x, branch(x)), 1)]), 0),
    "broadcast": (lambda x: added(layers.GlobalAveragePooling2D(keepdims=True)(x), branch(x)), 0),
    "other activation": (lambda x: layers.Activation("silu")(layers.Add()([x, branch(x)])), 0),
    "behind a sum apart": (unfused_before, 0),
    "three": (lambda x: added(x, branch(x), conv(x, 1)), 0),
}


def images(count=8):
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype("float32")


def quantized_model(part, returned=False):
    keras.utils.set_random_seed(1)
    inputs = keras.Input(SHAPE)
    x = conv(inputs, activation="relu")
    outputs = layers.Conv2D(4, 1)(part(x))
    model = randomize(keras.Model(inputs, [outputs, x] if returned else outputs))
    return calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), images(), verbose=0)


def hints(path):
    names = [node.output[0] for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"]
    return [name for name in names if HINT in name]


def in_openvino(path, x, static):
    model = openvino.Core().read_model(path)
    if static:
        model.reshape(x.shape)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(x)[0]


def share_that_differs(actual, expected):
    return (np.abs(actual - expected) > 2e-3 * expected.std()).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMS)
def test_keras_and_openvino_agree(name, tmp_path):
    part, taken_in = SUMS[name]
    quantized, x = quantized_model(part), images()
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
    assert len(hints(path)) == taken_in
    assert not check_onnx(path, "openvino").errors
    expected = quantized.predict(x, verbose=0)
    # Some value may lie between two integers; rounded where Keras does not, most would differ.
    for static in (False, True):
        assert share_that_differs(in_openvino(path, x, static), expected) < 0.1


def test_what_is_returned_is_not_written_over(tmp_path):
    quantized, x = quantized_model(SUMS["identity"][0], returned=True), images()
    path = export_onnx(quantized, tmp_path / "m.onnx")
    assert not hints(path)
    assert share_that_differs(in_openvino(path, x, static=True), quantized.predict(x, verbose=0)[0]) < 0.1


def test_the_sum_is_part_of_the_convolution(tmp_path):
    path = export_onnx(quantized_model(SUMS["identity"][0]), tmp_path / "m.onnx")
    assert runtime_report(path, runtime="openvino").integer_share == 1.0
    model = openvino.Core().read_model(path)
    model.reshape((8, *SHAPE))
    compiled = openvino.compile_model(model, "CPU")
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [node["layerType"].astype(str) for node in nodes]
    written = [n["outputPrecisions"].astype(str) for n, kind in zip(nodes, kinds, strict=True) if kind == "Convolution"]
    # Only the last convolution gives floats; without the hint, so does the one before the sum.
    assert [precision == "u8" for precision in written] == [True, True, True, False]
    assert "Eltwise" not in kinds


def test_range_covers_all_that_the_sum_can_be(tmp_path):
    """Conv + integers of -2.56 to 2.54, quantized to -5.12 to 5.08: beyond 7.68 and -7.66, its limit is reached."""
    g = Graph(2, 4, 4)
    x = g.op("Conv", g.quantized(g.op("Relu", g.x)), g.weight(2, 2, 1, 1), kernel_shape=[1, 1])
    shortcut = g.quantized(g.op("Conv", g.x, g.weight(2, 2, 1, 1), kernel_shape=[1, 1]))
    total = g.op("Add", shortcut, x)
    for value in (shortcut, total):
        value.shape = ir.Shape(["batch", 2, 4, 4])
    g.quantized(total, scale=0.04)
    bounded_sums(g.builder)
    (hint,) = [node for node in g.builder.graph if node.outputs[0].meta.get(HINT)]
    scale, zero_point = (hint.inputs[index].const_value.numpy() for index in (1, 2))
    low, high = -float(zero_point) * float(scale), (255 - float(zero_point)) * float(scale)
    assert -8 < low < -5.12 - 2.54
    assert 5.08 + 2.56 < high < 8
    assert total.producer().inputs[0].producer().inputs[0] is hint.outputs[0]  # OpenVINO takes the first


def test_file_without_named_quantizers(tmp_path):
    quantized, x = quantized_model(SUMS["identity"][0]), images()
    path = export_onnx(quantized, tmp_path / "m.onnx")
    with without_quantizers(path, hints(path)) as exact:
        assert exact.parent == path.parent
        (actual,) = run(exact, [x], optimize=False)
    assert not exact.exists()
    assert share_that_differs(actual, quantized.predict(x, verbose=0)) < 0.1
