import keras
import pytest
from keras import layers
from onnx_models import assert_agrees, layer_model, op_counts, skip_on_torch
from small_models import randomize


@pytest.mark.parametrize(("shape", "axis"), [((6,), -1), ((5, 6), -1), ((4, 5, 6), -1), ((4, 5, 6), 1), ((5, 6), 1)])
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False), (False, False)])
def test_batch_normalization(tmp_path, shape, axis, scale, center):
    layer = layers.BatchNormalization(axis=axis, scale=scale, center=center, epsilon=1e-2)
    assert "Transpose" not in op_counts(assert_agrees(layer_model(layer, shape), tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("shape", "axis"), [((6,), -1), ((5, 6), -1), ((5, 6), 1), ((4, 5, 6), (2, 3)), ((4, 5, 6), (1, 3))]
)
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("opset", [13, None])
def test_layer_normalization(tmp_path, shape, axis, scale, center, opset):
    if axis == 1:
        skip_on_torch("one axis is normalized as if it were the last")
    layer = layers.LayerNormalization(axis=axis, scale=scale, center=center)
    proto = assert_agrees(layer_model(layer, shape), tmp_path / "m.onnx", opset=opset)
    trailing = axis in (-1, (2, 3))
    assert op_counts(proto)["LayerNormalization"] == (1 if trailing and opset is None else 0)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization_behind_a_convolution(tmp_path, axis):
    if axis == 1:
        skip_on_torch("one axis is normalized as if it were the last")
    inputs = keras.Input((6, 7, 3))
    x = layers.Conv2D(4, 3)(layers.LayerNormalization(axis=axis)(layers.Conv2D(4, 3)(inputs)))
    assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("shape", "axis"), [((6,), -1), ((5, 6), -1), ((4, 5, 6), -1), ((6, 4, 5), 1), ((None, 6), -1)]
)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, False)])
def test_group_normalization(tmp_path, shape, axis, groups, scale, center):
    layer = layers.GroupNormalization(groups, axis=axis, scale=scale, center=center)
    assert_agrees(layer_model(layer, shape), tmp_path / "m.onnx")


@pytest.mark.parametrize("opset", [None, 23])
@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_rms_normalization(tmp_path, axis, opset):
    if axis == 1:
        skip_on_torch("RMSNormalization normalizes the last axes")
    model = layer_model(layers.RMSNormalization(axis=axis), (6, 6))
    proto = assert_agrees(model, tmp_path / "m.onnx", opset=opset)
    assert op_counts(proto)["RMSNormalization"] == (opset == 23 and axis != 1)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_unit_normalization(tmp_path, axis):
    assert_agrees(layer_model(layers.UnitNormalization(axis=axis), (4, 6)), tmp_path / "m.onnx")


@pytest.mark.parametrize("dense_first", [True, False])
def test_batch_normalization_of_the_steps_of_a_sequence_beside_a_product_of_its_features(tmp_path, dense_first):
    inputs = x = keras.Input((4, 4))
    for layer in (layers.Dense(4), layers.BatchNormalization(axis=1))[:: 1 if dense_first else -1]:
        x = layer(x)
    model = randomize(keras.Model(inputs, x))
    assert op_counts(assert_agrees(model, tmp_path / "m.onnx"))["BatchNormalization"] == 1
