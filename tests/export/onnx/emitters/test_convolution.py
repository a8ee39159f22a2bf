import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, export, layer_model, op_counts, skip_on_torch

CPU_CONVOLVES_CHANNELS_FIRST = keras.backend.backend() != "tensorflow"


def shape(rank, channels, data_format, size=9):
    space = tuple(size + i for i in range(rank))
    return (*space, channels) if data_format == "channels_last" else (channels, *space)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("strides", "dilation", "groups"), [(1, 1, 1), (2, 1, 1), (3, 1, 2), (1, 2, 1), (1, 3, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolution(tmp_path, rank, strides, dilation, groups, padding):
    layer = getattr(layers, f"Conv{rank}D")(
        4, 3, strides=strides, dilation_rate=dilation, groups=groups, padding=padding, activation="relu"
    )
    if rank == 3 and dilation > 1 and groups > 1:
        pytest.skip("not computed by Keras on TensorFlow")
    assert_agrees(layer_model(layer, shape(rank, 2 * groups, "channels_last")), tmp_path / "m.onnx")


@pytest.mark.parametrize("kernel", [1, 2, (3, 2), (5, 4)])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8])
def test_same_padding_is_shared_out_as_in_keras(tmp_path, kernel, strides, size):
    layer = layers.Conv2D(3, kernel, strides=strides, padding="same", use_bias=False)
    assert_agrees(layer_model(layer, (size, size + 3, 2)), tmp_path / "m.onnx")


@pytest.mark.parametrize("size", [6, 7, 8, 9])
@pytest.mark.parametrize("layer", [layers.Conv2D, layers.DepthwiseConv2D, layers.MaxPooling2D, layers.AveragePooling2D])
def test_same_padding_of_unknown_sizes(tmp_path, layer, size):
    if layer is layers.AveragePooling2D:
        skip_on_torch("padding on one side only counts as zeros")
    arguments = (3, 3) if layer is layers.Conv2D else (3,)
    model = layer_model(layer(*arguments, strides=2, padding="same"), (None, None, 2))
    x = np.random.default_rng(0).normal(size=(2, size, size + 1, 2)).astype("float32")
    proto = assert_agrees(model, tmp_path / "m.onnx", [x])
    dims = [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims[0] == "batch"
    assert all(dims[:3])


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_causal_convolution(tmp_path, padding, strides, dilation):
    layer = layers.Conv1D(4, 3, strides=strides, dilation_rate=dilation, padding=padding)
    assert_agrees(layer_model(layer, (10, 3)), tmp_path / "m.onnx")


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_convolution(tmp_path, rank, strides, dilation, padding, multiplier):
    layer = getattr(layers, f"DepthwiseConv{rank}D")(
        3, strides=strides, dilation_rate=dilation, padding=padding, depth_multiplier=multiplier
    )
    assert_agrees(layer_model(layer, shape(rank, 4, "channels_last")), tmp_path / "m.onnx")


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2])
def test_separable_convolution(tmp_path, rank, padding, strides):
    layer = getattr(layers, f"SeparableConv{rank}D")(
        5, 3, strides=strides, padding=padding, depth_multiplier=2, activation="relu"
    )
    assert_agrees(layer_model(layer, shape(rank, 3, "channels_last")), tmp_path / "m.onnx")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "strides"), [(3, 1), (3, 2), (4, 2), (2, 2), (2, 3), (1, 2), (5, 3)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed_convolution(tmp_path, rank, kernel, strides, padding):
    layer = getattr(layers, f"Conv{rank}DTranspose")(3, kernel, strides=strides, padding=padding)
    assert_agrees(layer_model(layer, shape(rank, 2, "channels_last", size=5)), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("kernel", "strides", "output_padding"), [(3, 2, 0), (3, 2, 1), (4, 3, 1), (4, 3, 2), (5, 2, 1)]
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed_convolution_with_output_padding(tmp_path, kernel, strides, output_padding, padding):
    layer = layers.Conv2DTranspose(
        3, kernel, strides=strides, padding=padding, output_padding=output_padding, use_bias=False
    )
    assert_agrees(layer_model(layer, (5, 6, 2)), tmp_path / "m.onnx")


@pytest.mark.skipif(not CPU_CONVOLVES_CHANNELS_FIRST, reason="TensorFlow does not compute it on a CPU")
@pytest.mark.parametrize("rank", [1, 2])
def test_channels_first_needs_no_transpose_on_any_backend(tmp_path, rank):
    layer = getattr(layers, f"Conv{rank}D")(4, 3, padding="same", data_format="channels_first")
    proto = assert_agrees(layer_model(layer, shape(rank, 3, "channels_first")), tmp_path / "m.onnx")
    assert op_counts(proto) == {"Conv": 1}


@pytest.mark.parametrize("layer", [layers.MaxPooling2D, layers.AveragePooling2D, layers.UpSampling2D])
def test_channels_first_layers_are_written_without_a_transpose(tmp_path, layer):
    model = layer_model(layer(2, data_format="channels_first"), (3, 8, 8))
    assert "Transpose" not in op_counts(export(model, tmp_path / "m.onnx"))
