import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, op_counts

from tensorflow_quantization.export import UnsupportedLayerError, export_onnx


def _model(function, *shapes, dtype="float32"):
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    return keras.Model(inputs, function(*inputs))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.log1p(ops.abs(x)),
        lambda x: ops.log2(ops.abs(x) + 1),
        lambda x: ops.log10(ops.abs(x) + 1),
        ops.expm1,
        ops.exp2,
        ops.tan,
        ops.sinh,
        ops.cosh,
        ops.arctan,
        ops.arcsinh,
        lambda x: ops.arcsin(ops.tanh(x)),
        lambda x: ops.arccos(ops.tanh(x)),
        lambda x: ops.arctanh(ops.clip(x, -0.9, 0.9)),
        lambda x: ops.arccosh(ops.abs(x) + 1.1),
        ops.trunc,
        ops.round,
        lambda x: ops.round(x, 2),
        ops.erfc,
        ops.cbrt,
        ops.deg2rad,
        ops.rad2deg,
        ops.copy,
        ops.isnan,
        ops.isinf,
        ops.isposinf,
        ops.isfinite,
        ops.nan_to_num,
        ops.logical_not,
        lambda x: ops.saturate_cast(x * 500, "uint8"),
        lambda x: ops.saturate_cast(x * 500, "int8"),
        lambda x: x + ops.zeros_like(x),
        lambda x: x + ops.ones_like(x),
        lambda x: x + ops.full_like(x, 2.5),
        lambda x: ops.zeros_like(x, dtype="int32"),
        lambda x: -x,
        lambda x: abs(x) ** 1.5,
        lambda x: 2 / (abs(x) + 1),
    ],
)
def test_function_of_one_tensor(tmp_path, function):
    assert_agrees(_model(function, (3, 4)), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        ops.add,
        ops.subtract,
        ops.multiply,
        ops.maximum,
        ops.minimum,
        ops.divide,
        lambda x, y: ops.divide_no_nan(x, ops.relu(y)),
        ops.floor_divide,
        ops.mod,
        ops.fmod,
        ops.arctan2,
        ops.hypot,
        ops.logaddexp,
        ops.equal,
        ops.not_equal,
        ops.greater,
        ops.greater_equal,
        ops.less,
        ops.less_equal,
        lambda x, y: ops.logical_and(x > 0, y > 0),
        lambda x, y: ops.logical_or(x > 0, y > 0),
        lambda x, y: ops.logical_xor(x > 0, y > 0),
        lambda x, y: ops.where(x > 0, x, y),
        lambda x, y: ops.where(x > 0, x, 0.0),
        lambda x, y: ops.where(x > 0, x > 1, y > 0),
        lambda x, y: ops.isclose(x, y, atol=0.5),
        ops.heaviside,
        lambda x, y: ops.power(ops.abs(x), y),
    ],
)
@pytest.mark.parametrize("shapes", [[(3, 4), (3, 4)], [(3, 4), (1, 4)], [(2, 3, 4), (3, 1)]])
def test_function_of_two_tensors(tmp_path, function, shapes):
    if len(shapes[0]) != len(shapes[1]):  # of different ranks, the second one without a batch that differs
        inputs = keras.Input(shapes[0])
        constant = np.random.default_rng(0).normal(size=shapes[1]).astype("float32")
        model = keras.Model(inputs, function(inputs, constant))
    else:
        model = _model(function, *shapes)
    assert_agrees(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x // 2,
        lambda x: (x - 3) // 2,
        lambda x: (x - 3) % 2,
        lambda x: (x - 3) % -2,
        lambda x: ops.fmod(x - 3, 2),
        lambda x: x > 1.5,
        lambda x: x + 0.5,
        lambda x: x / 2,
        lambda x: ops.isnan(x),
        lambda x: ops.where(x > 2, 1, x),
        lambda x: ops.sign(x - 2),
    ],
)
def test_integers(tmp_path, function):
    assert_agrees(_model(function, (3, 4), dtype="int32"), tmp_path / "m.onnx")


def test_special_numbers(tmp_path):
    x = np.array([[math.nan, math.inf, -math.inf, 0.0]], "float32")
    functions = [
        ops.isnan,
        ops.isinf,
        ops.isposinf,
        ops.isneginf,
        ops.isfinite,
        lambda x: ops.nan_to_num(x, 1.0, 2.0, 3.0),
    ]
    for function in functions:
        assert_agrees(_model(function, (4,)), tmp_path / "m.onnx", [x])


def test_angles_in_all_quadrants_and_on_the_axes(tmp_path):
    numbers = np.array([-2.0, 0.0, 3.0], "float32")
    y, x = (a.reshape(-1, 1) for a in np.meshgrid(numbers, numbers))
    assert_agrees(_model(ops.arctan2, (1,), (1,)), tmp_path / "m.onnx", [y, x])


def test_variables_are_operands(tmp_path):
    variable = keras.Variable(np.arange(4, dtype="float32"), name="offset")
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, ops.add(ops.multiply(inputs, variable), variable))
    assert_agrees(model, tmp_path / "m.onnx")


def test_arithmetic_stays_in_the_layout_of_the_convolutions(tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    scale = np.arange(1, 5, dtype="float32")
    x = ops.where(x > 0, ops.minimum(x * scale, 1.0), ops.expm1(x))
    x = layers.Conv2D(2, 3)(ops.logaddexp(x, ops.zeros_like(x)))
    proto = assert_agrees(keras.Model(inputs, x), tmp_path / "m.onnx")
    assert op_counts(proto)["Transpose"] == 2


def test_a_reduction_over_no_axis_is_left_to_the_fallback(tmp_path):
    # ONNX would reduce over all.
    model = _model(lambda x: ops.sum(x, axis=()), (3, 4))
    if keras.backend.backend() == "tensorflow":
        assert_agrees(model, tmp_path / "m.onnx")
    else:
        with pytest.raises(UnsupportedLayerError, match="reduces over no axis"):
            export_onnx(model, tmp_path / "m.onnx")
