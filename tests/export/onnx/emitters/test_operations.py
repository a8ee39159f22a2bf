import keras
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, op_counts, skip_on_torch
from small_models import randomize


@pytest.mark.parametrize(
    "function",
    [
        ops.abs,
        ops.negative,
        ops.exp,
        ops.square,
        ops.sin,
        ops.cos,
        ops.erf,
        ops.floor,
        ops.ceil,
        ops.sign,
        ops.tanh,
        ops.relu,
        ops.relu6,
        ops.silu,
        ops.softplus,
        ops.sigmoid,
        ops.hard_sigmoid,
        ops.leaky_relu,
        ops.elu,
        ops.softmax,
        lambda x: ops.softmax(x, axis=1),
        ops.log_softmax,
        lambda x: ops.sqrt(ops.abs(x) + 1),
        lambda x: ops.rsqrt(ops.abs(x) + 1),
        lambda x: ops.log(ops.abs(x) + 1),
        lambda x: ops.reciprocal(ops.abs(x) + 1),
        lambda x: ops.clip(x, -0.5, 0.7),
        lambda x: ops.cast(x * 5, "int32"),
        lambda x: ops.cast(x > 0, "float32"),
        lambda x: ops.threshold(x, 0.3, -1.0),
        lambda x: keras.activations.relu(x, negative_slope=0.2, max_value=1.0),
        ops.glu,
        ops.stop_gradient,
    ],
)
def test_unary(tmp_path, function):
    x = keras.Input((3, 4))
    assert_agrees(keras.Model(x, function(x)), tmp_path / "m.onnx")


@pytest.mark.parametrize("function", [ops.mean, ops.sum, ops.max, ops.min])
@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (1, 3), None, 0])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("opset", [13, 18])
def test_reduction(tmp_path, function, axis, keepdims, opset):
    if axis is None and keepdims:
        skip_on_torch("the axes of a reduction over all of them are not kept")
    x = keras.Input((3, 4, 5))
    assert_agrees(keras.Model(x, function(x, axis=axis, keepdims=keepdims)), tmp_path / "m.onnx", opset=opset)


@pytest.mark.parametrize("function", [ops.mean, ops.sum, ops.max])
@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (2, 3)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reduction_of_an_image_is_done_as_it_is_stored(tmp_path, function, axis, keepdims):
    inputs = keras.Input((6, 7, 3))
    x = function(layers.Conv2D(4, 3)(inputs), axis=axis, keepdims=keepdims)
    counts = op_counts(assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx"))
    if function is ops.mean and axis == (1, 2):
        assert counts["GlobalAveragePool"] == 1
        assert counts["Transpose"] == 1


@pytest.mark.parametrize("shapes", [[(3, 4), (4, 5)], [(2, 3, 4), (2, 4, 5)]])
def test_matmul(tmp_path, shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    assert_agrees(keras.Model(inputs, ops.matmul(*inputs)), tmp_path / "m.onnx")


def test_matmul_with_a_constant(tmp_path):
    x = keras.Input((3, 4))
    assert_agrees(keras.Model(x, ops.matmul(x, ops.ones((4, 2)) * 0.5)), tmp_path / "m.onnx")
