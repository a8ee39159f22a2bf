"""Each normalization is found exactly where OpenVINO itself computes it wrong, and the pass makes it right."""

import platform

import numpy as np
import pytest
from qdq_steps import assert_found_and_mended, assert_right_and_not_found, numbers, op, shaped

from tensorflow_quantization.export.onnx.passes.openvino.normalization_barriers import normalization_barriers
from tensorflow_quantization.onnx_graph.scaled_normalizations import scaled_normalizations

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

ROWS = ("n", 8, 16)


def times(factor):
    return lambda f, x: f.op("Mul", x, f.constant(np.asarray(factor, np.float32)))


def normalize(f, x):
    return f.op("LayerNormalization", x, f.floats(16), f.floats(16), axis=-1, epsilon=1e-3)


def composed(f, x):
    """A normalization of several operators."""
    centered = f.op("Sub", x, f.op("ReduceMean", x, f.ints(-1), keepdims=1))
    variance = f.op("ReduceMean", f.op("Mul", centered, centered), f.ints(-1), keepdims=1)
    return f.op("Div", centered, f.op("Sqrt", f.op("Add", variance, f.constant(np.float32(1e-3)))))


def instances_of(channels):
    return lambda f, x: f.op("InstanceNormalization", x, f.floats(channels), f.floats(channels), epsilon=1e-3)


def dequantized(f, x):
    return f.pair(x, 0.001, 128)


def plus_dequantized(f, x):
    return f.op("Add", x, dequantized(f, "x"))


def quantize(f, x):
    return f.pair(x, 0.02, 128)


def matmul(f, x):
    return f.op("MatMul", x, f.floats(16, 16))


def product(f, x):
    """Of integers and weights."""
    weights = f.constant(f.rng.integers(-60, 60, (16, 16)).astype("int8"))
    weights = f.op("DequantizeLinear", weights, f.constant(np.float32(0.01)), f.constant(np.int8(0)))
    return f.op("MatMul", dequantized(f, x), weights)


def symmetric(dtype):
    return lambda f, x: f.pair(x, 0.001, 0, dtype)


def of_weights(op_type, shape, axis=None, **attributes):
    """A product with weights that have one scale, or one for each channel along an axis."""

    def step(f, x):
        count = () if axis is None else (shape[axis],)
        constants = f.rng.integers(-60, 60, shape).astype("int8"), 0.003 * numbers(*count), np.zeros(count, "int8")
        along = {} if axis is None else {"axis": axis}
        return f.op(op_type, x, f.op("DequantizeLinear", *map(f.constant, constants), **along), **attributes)

    return step


def convolution(axis=None, op_type="Conv"):
    return of_weights(op_type, (8, 8, 3), axis, pads=[1, 1])


def transpose(f, x):
    return f.op("Transpose", x, perm=[0, 2, 1])


def normalize_channels(f, x):
    return f.op("LayerNormalization", x, f.floats(8), f.floats(8), axis=-1, epsilon=1e-3)


def clip(f, x):
    return f.op("Clip", x, f.constant(np.float32(-1)), f.constant(np.float32(1)))


def resize(f, x):
    return f.op("Resize", x, f.constant(np.zeros(0, np.float32)), f.constant(np.float32([1, 1, 2])), mode="nearest")


conv, deconv = convolution(0), convolution(1, "ConvTranspose")
pairs, halves = shaped("Reshape", 0, 4, -1), lambda f, x: f.op("Slice", x, f.ints(0), f.ints(16), f.ints(2))

tenth, sigmoid, relu, instances = times(0.1), op("Sigmoid"), op("Relu"), instances_of(8)
WRONG = {
    "input": (tenth, normalize),
    "mul": (sigmoid, tenth, normalize),
    "div": (sigmoid, op("Div", ()), tenth, normalize),
    "negative": (sigmoid, times(-0.1), normalize),
    "rows": (sigmoid, times(0.2 * numbers(8, 1)), normalize),
    "instances": (sigmoid, tenth, instances),
    "composed": (sigmoid, tenth, composed),
    "channels": (sigmoid, times(0.05 * numbers(8, 1)), instances),
    "relu": (sigmoid, tenth, relu, normalize),
    "moved": (sigmoid, tenth, lambda f, x: f.op("Transpose", x, perm=[1, 0, 2]), normalize),
    "groups": (sigmoid, tenth, shaped("Reshape", 0, 8, -1), instances, shaped("Reshape", 0, 8, 16)),
    "unsqueezed": (sigmoid, tenth, shaped("Unsqueeze", 1), shaped("Squeeze", 1), normalize),
    "dequantized-relu": (dequantized, relu, tenth, normalize),
    "sum": (sigmoid, lambda f, x: f.op("Add", x, "x"), times(0.01), normalize),
    "sum-of-scales": (lambda f, x: f.pair(x, 0.0012, 128), plus_dequantized, normalize),
    "residual": (sigmoid, plus_dequantized, normalize),
    "int8": (symmetric("int8"), normalize),
    "uint8": (symmetric("uint8"), normalize),
    "int8-relu": (symmetric("int8"), relu, normalize),
    "int8-mul": (symmetric("int8"), tenth, normalize),
    "int8-instances": (symmetric("int8"), instances),
    "int8-composed": (symmetric("int8"), composed),
    "int8-moved": (symmetric("int8"), lambda f, x: f.op("Transpose", x, perm=[1, 0, 2]), normalize),
    "conv": (dequantized, conv, instances),
    "conv-steps": (dequantized, conv, normalize),
    "conv-composed": (dequantized, conv, composed),
    "conv-relu-mul": (dequantized, conv, relu, tenth, instances),
    "conv-leaky": (dequantized, conv, op("LeakyRelu"), instances),
    "conv-resized": (dequantized, conv, resize, instances, halves),
    "conv-groups": (dequantized, conv, shaped("Reshape", 0, 8, -1), instances, shaped("Reshape", 0, 8, 16)),
    "conv-one-scale": (dequantized, convolution(), pairs, instances_of(4), shaped("Reshape", 0, 8, 16)),
    "conv-one-scale-clip": (dequantized, convolution(), clip, instances),
    "deconv": (symmetric("int8"), deconv, instances),
    "dense-one-scale": (symmetric("int8"), of_weights("MatMul", (16, 16)), normalize),
}
RIGHT = {
    "no-factor": (sigmoid, normalize),
    "one": (sigmoid, times(1), normalize),
    "composed": (sigmoid, composed),
    "along-the-axis": (sigmoid, times(0.1 * numbers(16)), normalize),
    "shifted": (sigmoid, tenth, op("Add", ()), normalize),
    "after-a-shift": (sigmoid, op("Add", ()), tenth, normalize),
    "dequantized": (dequantized, normalize),
    "dequantized-mul": (dequantized, tenth, normalize),
    "int8-shifted": (symmetric("int8"), op("Add", ()), normalize),
    "int8-activation": (symmetric("int8"), sigmoid, normalize),
    "product": (product, tenth, normalize),
    "float-product": (matmul, tenth, normalize),
    "bias": (matmul, op("Add", (16,)), tenth, normalize),
    "normalized": (normalize, tenth, normalize),
    "max": (sigmoid, tenth, lambda f, x: f.op("Max", x, f.constant(np.finfo(np.float32).min)), normalize),
    "activation": (sigmoid, tenth, op("Tanh"), normalize),
    "float-sum": (sigmoid, lambda f, x: f.op("Add", x, "x"), normalize),
    "conv-bias": (dequantized, conv, op("Add", (8, 1)), instances),
    "conv-tanh": (dequantized, conv, op("Tanh"), instances),
    "conv-clip": (dequantized, conv, clip, instances),
    "conv-groups-of-two": (dequantized, conv, pairs, instances_of(4), shaped("Reshape", 0, 8, 16)),
    "conv-along-the-axis": (dequantized, conv, transpose, normalize_channels, transpose),
    "deconv-asymmetric": (dequantized, deconv, instances),
    "dense": (symmetric("int8"), of_weights("MatMul", (16, 16), 1), normalize),
}


X = np.random.default_rng(0).uniform(-0.1, 0.1, (3, *ROWS[1:])).astype("float32")


@pytest.mark.parametrize("steps", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong_and_mended(steps, tmp_path):
    assert_found_and_mended(
        scaled_normalizations,
        normalization_barriers,
        ROWS,
        (*steps, quantize, matmul),
        tmp_path,
        off=0.01,
        right=0.005,
        x=X,
    )


@pytest.mark.parametrize("steps", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(steps, tmp_path):
    assert_right_and_not_found(scaled_normalizations, ROWS, (*steps, quantize, matmul), tmp_path, right=0.005, x=X)
