import keras
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from onnx_graphs import Graph
from onnx_models import op_counts

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.export.onnx.passes.tensorrt.subpixel_convolution import subpixel_convolution


def transposed(g, x, *kernel, bias=True, axis=1, **attributes):
    weight = g.int8_weight(3, 2, *kernel, axis=axis)
    biases = [g.weight(2)] if bias else []
    return g.op("ConvTranspose", g.quantized(x), weight, *biases, kernel_shape=list(kernel), **attributes)


@st.composite
def geometries(draw):
    """Kernel, strides, pads and output padding as ONNX allows them, of one or two axes."""
    rank = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 5)) for _ in range(rank)]
    strides = [draw(st.integers(1, 4)) for _ in range(rank)]
    begins, ends = ([draw(st.integers(0, k - 1)) for k in kernel] for _ in range(2))
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    return kernel, {"strides": strides, "pads": begins + ends, "output_padding": extra}


@given(geometries())
@settings(max_examples=60)
def test_values_are_the_same(tmp_path_factory, geometry):
    kernel, attributes = geometry
    g = Graph(3, *range(5, 5 + len(kernel)))
    y = g.op("Relu", transposed(g, g.x, *kernel, **attributes))
    counts = g.check(tmp_path_factory.mktemp("g"), y, subpixel_convolution)
    # Only pads that reach beyond the first input have no counterpart.
    assert ("ConvTranspose" in counts) == ("its padding has no counterpart" in g.log)


@pytest.mark.parametrize("axis", [None, 1], ids=["tensor", "channel"])
@pytest.mark.parametrize("bias", [False, True])
def test_pixels_are_put_together_after_the_activations(tmp_path, axis, bias):
    g = Graph(3, 4, 4)
    y = transposed(g, g.x, 3, 3, bias=bias, axis=axis, strides=[2, 2], pads=[0, 0, 1, 1])
    z = g.op("Sigmoid", g.op("LeakyRelu", y, alpha=0.1))
    counts = g.check(tmp_path, z, subpixel_convolution)
    assert counts["DepthToSpace"] == 1 and "Slice" not in counts
    order = [node.op_type for node in g.builder.graph]
    assert order[-4:] == ["Conv", "LeakyRelu", "Sigmoid", "DepthToSpace"]


def test_dilations_become_dilations_of_the_convolution(tmp_path):
    g = Graph(3, 6, 6)
    counts = g.check(tmp_path, transposed(g, g.x, 3, 3, dilations=[2, 2], pads=[2, 2, 2, 2]), subpixel_convolution)
    assert counts["Conv"] == 1 and "DepthToSpace" not in counts


def test_each_reader_reads_the_pixels(tmp_path):
    g = Graph(3, 4, 4)
    y = transposed(g, g.x, 2, 2, strides=[2, 2])
    counts = g.check(tmp_path, [g.op("Relu", y), g.op("Neg", y)], subpixel_convolution)
    assert counts["DepthToSpace"] == 1


def test_floats_stay(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("ConvTranspose", g.x, g.weight(3, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    assert g.check(tmp_path, y, subpixel_convolution)["ConvTranspose"] == 1


def test_groups_stay(tmp_path):
    g = Graph(4, 4, 4)
    weight = g.int8_weight(4, 2, 2, 2, axis=1)
    y = g.op("ConvTranspose", g.quantized(g.x), weight, kernel_shape=[2, 2], strides=[2, 2], group=2)
    assert g.check(tmp_path, y, subpixel_convolution)["ConvTranspose"] == 1


def test_unequal_strides_of_unknown_sizes_stay():
    g = Graph(3, None, None)
    transposed(g, g.x, 2, 2, strides=[2, 1])
    assert subpixel_convolution(g.builder) == 0
    transposed(g, g.x, 2, 2, strides=[2, 2])
    assert subpixel_convolution(g.builder) == 1


DECODERS = {
    "1d": ((8, 32), lambda: layers.Conv1DTranspose(32, 4, strides=2, padding="same", activation="relu")),
    "2d": ((8, 8, 4), lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")),
    "2d unequal": ((8, 8, 4), lambda: layers.Conv2DTranspose(4, 3, strides=(2, 1), activation="relu")),
    "3d": ((4, 4, 4, 4), lambda: layers.Conv3DTranspose(4, 2, strides=2, activation="relu")),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_layers_run_in_integers(tmp_path, kind):
    shape, layer = DECODERS[kind]
    x = keras.Input(shape)
    y = layers.BatchNormalization()(layer()(x))
    data = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    model = quantize_model(keras.Model(x, getattr(layers, f"Conv{len(shape) - 1}D")(4, 2)(y)), target="tensorrt")
    calibrate(model, data, verbose=0)
    path = export_onnx(model, tmp_path / "model.onnx", verify_with=data)
    assert "ConvTranspose" not in op_counts(onnx.load(path))
    assert not list(check_onnx(path, "tensorrt"))
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    assert runtime_report(path, "tensorrt").integer_share == 1


def test_output_of_the_model_keeps_its_name(tmp_path):
    x = keras.Input((4, 4, 4), name="image")
    model = quantize_model(keras.Model(x, layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)), target="tensorrt")
    data = np.random.default_rng(0).normal(size=(8, 4, 4, 4)).astype("float32")
    calibrate(model, data, verbose=0)
    graph = onnx.load(export_onnx(model, tmp_path / "model.onnx", verify_with=data)).graph
    assert [value.name for value in graph.output] == ["up"]
    assert "DepthToSpace" in {node.op_type for node in graph.node}
