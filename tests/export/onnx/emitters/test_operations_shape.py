import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, op_counts, skip_on_torch, skip_unless_computable

from tensorflow_quantization.export import UnsupportedLayerError, export_onnx

INDICES = np.array([[[0, 2], [1, 1], [2, 0]]] * 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.stack([x, x + 1], axis=0),
        lambda x: ops.stack([x, x + 1], axis=2),
        lambda x: ops.stack([x, x + 1], axis=-1),
        lambda x: ops.split(x, 2, axis=-1),
        lambda x: ops.split(x, [1, 4], axis=-1)[1:],
        lambda x: ops.array_split(x, 3, axis=2),
        lambda x: ops.unstack(x, axis=1),
        lambda x: ops.concatenate([x, np.ones((2, 3, 2, 6), "float32") * 2], axis=2),
        lambda x: ops.hstack([x, x]),
        lambda x: ops.vstack([x, x]),
        lambda x: ops.append(x, x, axis=1),
        lambda x: ops.tile(x, 2),
        lambda x: ops.tile(x, [2, 1, 3]),
        lambda x: ops.tile(x, [2, 1, 1, 1, 1]),
        lambda x: ops.repeat(x, 3, axis=1),
        lambda x: ops.repeat(x, 2, axis=0),
        lambda x: ops.repeat(x, [1, 0, 2, 1, 1, 1], axis=-1),
        lambda x: ops.repeat(x, 2),
        ops.flip,
        lambda x: ops.flip(x, axis=-1),
        lambda x: ops.flip(x, axis=(1, 2)),
        ops.fliplr,
        lambda x: ops.roll(x, 2, axis=-1),
        lambda x: ops.roll(x, (-1, 1), axis=(1, 2)),
        lambda x: ops.roll(x, 3),
        lambda x: ops.rot90(x, k=1, axes=(1, 2)),
        lambda x: ops.rot90(x, k=3, axes=(1, 2)),
        lambda x: ops.broadcast_to(x[:, :1], (2, 5, 4, 6)),
        ops.ravel,
        lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 3))),
        lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 3)), constant_values=2.0),
        lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 3)), mode="reflect"),
        lambda x: ops.reshape(x, (-1, 12, 6)),
        lambda x: ops.reshape(x, (-1,)),
        lambda x: ops.transpose(x, (0, 3, 1, 2)),
        lambda x: ops.swapaxes(x, 1, -1),
        lambda x: ops.moveaxis(x, (1, 2), (2, 3)),
        lambda x: ops.squeeze(ops.expand_dims(x, (1, 2)), 1),
        lambda x: x[:, ::-1],
        lambda x: x[:, 2:0:-1, ..., 1:-1:2],
        lambda x: x[..., 0],
        lambda x: x[:, None, -1, :, None],
        lambda x: x[:, -2:, ::2],
        lambda x: ops.take(x, [0, 2], axis=1),
        lambda x: ops.take(x, -1, axis=2),
        lambda x: ops.take(x, INDICES[0], axis=3),
        lambda x: ops.take(x, ops.argmax(x[:, 0, 0], axis=-1), axis=3),
        lambda x: ops.take_along_axis(x[..., 0], ops.argsort(x[..., 0], axis=1), axis=1),
        lambda x: ops.slice(x, (0, 1, 0, 2), (2, 2, 3, 2)),
        lambda x: ops.tril(x),
        lambda x: ops.triu(x, 1),
        lambda x: ops.cumsum(x, axis=1),
        lambda x: ops.cumsum(x),
        lambda x: ops.diff(x, axis=2),
        lambda x: ops.sort(x, axis=1),
        lambda x: ops.sort(x),
        lambda x: ops.argsort(x, axis=-1),
        lambda x: ops.top_k(x, 2),
        lambda x: ops.nn.space_to_depth(x[:, :2], 2, data_format="channels_last"),
        lambda x: ops.nn.depth_to_space(x[..., :4], 2, data_format="channels_last"),
    ],
)
def test_operation(tmp_path, function):
    inputs = keras.Input((3, 4, 6))
    model = keras.Model(inputs, function(inputs))
    skip_unless_computable(model)
    assert_agrees(model, tmp_path / "m.onnx")


def test_symmetric_padding(tmp_path):
    skip_on_torch("symmetric padding is something else")
    inputs = keras.Input((3, 4, 6))
    padded = ops.pad(inputs, ((0, 0), (1, 2), (0, 0), (0, 3)), mode="symmetric")
    assert_agrees(keras.Model(inputs, padded), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.one_hot(x, 4),
        lambda x: ops.one_hot(x, 4, axis=1),
        lambda x: ops.one_hot(x - 1, 4, dtype="int32"),
        lambda x: ops.multi_hot(x, 5),
        lambda x: ops.take(np.arange(12, dtype="float32").reshape(6, 2), x, axis=0),
        lambda x: ops.take(keras.Variable(np.arange(12, dtype="float32").reshape(6, 2)), x, axis=0),
        lambda x: ops.repeat(ops.expand_dims(x, 1), 2, axis=2),
        lambda x: ops.flip(x, 1),
    ],
)
def test_of_integers(tmp_path, function):
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, function(inputs))
    skip_unless_computable(model)
    assert_agrees(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.split(x, 2, axis=-1),
        lambda x: ops.flip(x, axis=1),
        lambda x: ops.roll(x, 2, axis=-1),
        lambda x: ops.concatenate([x, x], axis=-1),
        lambda x: x[:, ::2, 1:],
        lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
    ],
)
def test_the_layout_of_the_convolutions_is_kept(tmp_path, function):
    inputs = keras.Input((6, 6, 3))
    x = function(layers.Conv2D(4, 3, padding="same")(inputs))
    x = x[0] if isinstance(x, list) else x
    proto = assert_agrees(keras.Model(inputs, layers.Conv2D(2, 3)(x)), tmp_path / "m.onnx")
    assert op_counts(proto)["Transpose"] == 2


def test_an_axis_of_unknown_size(tmp_path):
    inputs = keras.Input((None, 3))
    outputs = [
        ops.flip(inputs, 1),
        ops.roll(inputs, 2, axis=1),
        ops.repeat(inputs, 2, axis=1),
        ops.sort(inputs, axis=1),
    ]
    assert_agrees(keras.Model(inputs, outputs), tmp_path / "m.onnx")


def test_splitting_an_axis_of_unknown_size_is_refused(tmp_path):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, ops.unstack(inputs, 7, axis=1)[0])
    with pytest.raises(UnsupportedLayerError, match="axis of unknown size"):
        export_onnx(model, tmp_path / "m.onnx")
