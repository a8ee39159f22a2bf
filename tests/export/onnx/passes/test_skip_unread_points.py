"""Points that nobody reads are not computed: on tiny graphs, compared with the graph before, and on a Keras network."""

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from keras import layers
from onnx_graphs import Graph
from small_models import randomize

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.passes.common.skip_unread_points import skip_unread_points


def conv(g, x, channels_in, channels_out, size=1, stride=1, pad=0):
    weight = g.weight(channels_out, channels_in, size, size)
    attributes = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": [pad] * 4}
    y = g.op("Conv", x, weight, g.weight(channels_out), **attributes)
    y.shape = ir.Shape(["batch", channels_out, *((side + 2 * pad - size) // stride + 1 for side in x.shape[2:])])
    return y


def same(g, op_type, *inputs):
    """An operator whose output has the shape of its first input."""
    y = g.op(op_type, *inputs)
    y.shape = ir.Shape(["batch", *inputs[0].shape[1:]])
    return y


def strides(g, op_type="Conv"):
    """Of the vertical axis of each operator of a type."""
    return [node.attributes["strides"].as_ints()[0] for node in g.builder.graph if node.op_type == op_type]


@pytest.mark.parametrize("size", [7, 8])  # the last point of the one is read, that of the other is not
def test_strides_move_into_the_convolution_that_makes_the_points(tmp_path, size):
    g = Graph(2, size, size)
    x = same(g, "Relu", conv(g, g.x, 2, 3, size=3, pad=1))
    g.check(tmp_path, [conv(g, x, 3, 4, stride=2), conv(g, x, 3, 5, stride=2)], skip_unread_points)
    assert strides(g) == [2, 1, 1]


def test_strides_multiply(tmp_path):
    g = Graph(2, 11, 11)
    x = conv(g, g.x, 2, 3, size=3, stride=2)
    y = conv(g, conv(g, x, 3, 3, stride=2), 3, 4, stride=2)
    g.check(tmp_path, y, skip_unread_points)
    assert strides(g) == [8, 1, 1]


def test_strides_move_through_quantizers(tmp_path):
    g = Graph(2, 8, 8)
    relu = same(g, "Relu", conv(g, g.x, 2, 3, size=3))
    x = g.quantized(relu)
    x.shape = relu.shape
    g.check(tmp_path, conv(g, x, 3, 4, stride=2), skip_unread_points)
    assert strides(g) == [2, 1]


def test_the_other_branch_of_a_residual_connection_is_thinned(tmp_path):
    g = Graph(2, 8, 8)
    shortcut = same(g, "Relu", conv(g, g.x, 2, 3))
    x = conv(g, conv(g, shortcut, 3, 3, size=3, pad=1), 3, 3)
    y = conv(g, same(g, "Relu", same(g, "Add", shortcut, x)), 3, 4, stride=2)
    counts = g.check(tmp_path, y, skip_unread_points)
    assert counts["MaxPool"] == 1
    assert strides(g) == [1, 2, 1, 1]


@pytest.mark.parametrize("other", ["everywhere", "another stride", "more than a point", "an output"])
def test_strides_stay_where_something_else_reads_other_points(tmp_path, other):
    g = Graph(2, 8, 8)
    x = same(g, "Relu", conv(g, g.x, 2, 3))
    outputs = {
        "everywhere": lambda: g.op("Exp", x),
        "another stride": lambda: conv(g, x, 3, 4, stride=3),
        "more than a point": lambda: conv(g, x, 3, 4, size=2, stride=2),
        "an output": lambda: x,
    }
    g.check(tmp_path, [conv(g, x, 3, 4, stride=2), outputs[other]()], skip_unread_points)
    assert strides(g)[:2] == [1, 2]
    assert "its readers do not all skip the same points" in g.log


def test_nothing_changes_where_no_convolution_makes_the_points(tmp_path):
    g = Graph(2, 8, 8)
    y = conv(g, same(g, "Relu", same(g, "Add", g.x, same(g, "Exp", g.x))), 2, 4, stride=2)
    assert g.check(tmp_path, y, skip_unread_points)["MaxPool"] == 0
    assert strides(g) == [2]


def test_a_factor_for_each_channel_is_no_image(tmp_path):
    g = Graph(2, 8, 8)
    x = conv(g, g.x, 2, 3)
    gate = g.op("Sigmoid", g.op("GlobalAveragePool", x))
    gate.shape = ir.Shape(["batch", 3, 1, 1])
    g.check(tmp_path, conv(g, same(g, "Mul", x, gate), 3, 4, stride=2), skip_unread_points)
    assert strides(g) == [1, 2]


@pytest.mark.parametrize(("shape", "moved"), [((), True), ((3, 1, 1), True), ((8,), False), ((3, 8, 8), False)])
def test_constants_that_differ_from_point_to_point_keep_the_points(tmp_path, shape, moved):
    g = Graph(2, 8, 8)
    y = same(g, "Add", conv(g, g.x, 2, 3), np.asarray(g.weight(*shape)))
    g.check(tmp_path, conv(g, y, 3, 4, stride=2), skip_unread_points)
    assert strides(g) == ([2, 1] if moved else [1, 2])


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_file_of_a_stage_of_a_resnet_agrees_with_keras(target, tmp_path):
    def convolution(x, filters, size, strides=1):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((9, 9, 3))
    x = layers.ReLU()(convolution(inputs, 8, 3))
    y = convolution(layers.ReLU()(convolution(x, 4, 3)), 8, 1)
    x = layers.ReLU()(layers.Add()([x, y]))
    y = convolution(layers.ReLU()(convolution(x, 4, 1, strides=2)), 8, 3)
    x = layers.ReLU()(layers.Add()([convolution(x, 8, 1, strides=2), y]))
    outputs = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(inputs, outputs))
    images = np.random.default_rng(0).normal(size=(4, 9, 9, 3)).astype("float32")
    quantized = calibrate(quantize_model(model, target=target), images, verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=images)
    graph = onnx.load(path).graph
    thinned = [tuple(a.ints) for n in graph.node if n.op_type == "Conv" for a in n.attribute if a.name == "strides"]
    assert thinned.count((2, 2)) == 1  # of three convolutions of one point and one of nine points, only the latter
    assert [n.op_type for n in graph.node].count("MaxPool") == 1
