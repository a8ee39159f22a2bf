import keras
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, layer_model, op_counts, skip_on_torch
from small_models import randomize


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Flatten(), (3, 4, 5)),
        (lambda: layers.Flatten(), (4,)),
        (lambda: layers.Flatten(), ()),
        (lambda: layers.Flatten(data_format="channels_first"), (3, 4, 5)),
        (lambda: layers.Reshape((4, 3)), (12,)),
        (lambda: layers.Reshape((-1, 2)), (4, 3)),
        (lambda: layers.Reshape((-1, 1)), (None, 3)),
        (lambda: layers.Permute((2, 1)), (3, 4)),
        (lambda: layers.Permute((3, 1, 2)), (3, 4, 5)),
        (lambda: layers.RepeatVector(3), (4,)),
        (lambda: layers.ZeroPadding1D((1, 2)), (4, 3)),
        (lambda: layers.ZeroPadding2D(((1, 2), (0, 3))), (4, 5, 3)),
        (lambda: layers.ZeroPadding2D(1, data_format="channels_first"), (3, 4, 5)),
        (lambda: layers.ZeroPadding3D(1), (3, 4, 5, 2)),
        (lambda: layers.Cropping1D((1, 2)), (6, 3)),
        (lambda: layers.Cropping2D(((1, 0), (0, 2))), (4, 5, 3)),
        (lambda: layers.Cropping2D(1, data_format="channels_first"), (3, 4, 5)),
        (lambda: layers.Cropping2D(0), (4, 5, 3)),
        (lambda: layers.Cropping3D(1), (3, 4, 5, 2)),
    ],
)
def test_layer(tmp_path, layer, shape):
    assert_agrees(layer_model(layer(), shape), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.reshape(x, (-1, 12)),
        lambda x: ops.reshape(x, (-1, 4)),
        lambda x: ops.transpose(x, (0, 2, 1)),
        lambda x: ops.transpose(x),
        lambda x: ops.swapaxes(x, 1, 2),
        lambda x: ops.moveaxis(x, 1, -1),
        lambda x: ops.moveaxis(x, (0, 1), (1, 2)),
        lambda x: ops.expand_dims(x, 1),
        lambda x: ops.expand_dims(x, -1),
        lambda x: ops.expand_dims(x, 0),
        lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
        lambda x: ops.squeeze(ops.expand_dims(x, 0)),
        lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1))),
        lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3.0),
        lambda x: ops.pad(x, ((0, 0), (1, 2), (2, 1)), mode="reflect"),
        lambda x: ops.concatenate([x, x * 2], axis=1),
        lambda x: x[:, 0],
        lambda x: x[:, -1],
        lambda x: x[..., 1:],
        lambda x: x[:, ::2, :-1],
        lambda x: x[:, None, :, 1],
        lambda x: x[:, 1, None],
        lambda x: x[1:, :2],
        lambda x: x[0],
    ],
)
def test_operation(tmp_path, function):
    x = keras.Input((3, 4))
    assert_agrees(keras.Model(x, function(x)), tmp_path / "m.onnx")


def test_slice_that_goes_backwards(tmp_path):
    skip_on_torch("has no slices with negative steps")
    x = keras.Input((3, 4))
    assert_agrees(keras.Model(x, [x[:, ::-1], x[:, 2:0:-1]]), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, 1:, ::2],
        lambda x: x[..., :2],
        lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))),
        lambda x: layers.Permute((2, 1, 3))(x),
        lambda x: layers.UpSampling2D(2)(layers.Cropping2D(1)(x)),
        lambda x: ops.relu(layers.ZeroPadding2D(1)(x)) * 2,
    ],
)
def test_between_convolutions_nothing_is_transposed(tmp_path, function):
    inputs = keras.Input((9, 8, 3))
    x = function(layers.Conv2D(4, 3)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 2)(x))
    proto = assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx")
    allowed = 2 if any("permute" in node.name for node in proto.graph.node) or "Transpose" in op_counts(proto) else 1
    assert op_counts(proto)["Transpose"] <= allowed


def test_reshaping_an_image_to_a_sequence(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((-1, 4))(layers.Conv2D(4, 4, strides=4)(inputs))
    assert_agrees(randomize(keras.Model(inputs, layers.Dense(5)(x))), tmp_path / "m.onnx")
