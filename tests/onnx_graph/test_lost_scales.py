"""Each product is found exactly where OpenVINO itself loses its scales, and the pass makes it right."""

import platform

import numpy as np
import pytest
from qdq_steps import assert_found_and_mended, assert_right_and_not_found, numbers, op, reduce, shaped

from tensorflow_quantization.export.onnx.passes.openvino.product_barriers import product_barriers
from tensorflow_quantization.onnx_graph.lost_scales import lost_scales

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

IMAGES, ROWS = ("n", 8, 6, 7), ("n", 8)
CHANNELS = 5


def product(op_type, shape, axis, bias=None, **attributes):
    """Of integers and weights so small that sums do not saturate on a processor without VNNI."""

    def step(f, x):
        weights = f.rng.integers(-60, 60, shape).astype("int8")
        constants = weights, numbers(CHANNELS) / 100, np.zeros(CHANNELS, "int8")
        weights = f.op("DequantizeLinear", *map(f.constant, constants), axis=axis)
        biases = () if bias is None else (f.constant(np.full(CHANNELS, bias, np.float32)),)
        return f.op(op_type, f.pair(x, 0.03, 0), weights, *biases, **attributes)

    return step


def convolution(bias=None):
    return product("Conv", (CHANNELS, 8, 3, 3), 0, bias, pads=[1] * 4, kernel_shape=[3, 3])


def transpose(*perm):
    return lambda f, x: f.op("Transpose", x, perm=perm)


def also_read(f, x):
    f.outputs.append(f.op("Identity", x))
    return x


def quantize(f, x):
    return f.pair(x, 0.05, 128)


def clip(f, x):
    return f.op("Clip", x, f.constant(np.float32(-1)), f.constant(np.float32(0.97)))


def both_signs(f, x):
    return f.op("Concat", x, f.op("Neg", x), axis=1)


conv, pool, relu = convolution(), op("MaxPool", kernel_shape=[2, 2]), op("Relu")
deconv = product("ConvTranspose", (8, CHANNELS, 2, 2), 1, strides=[2, 2], kernel_shape=[2, 2])
dense = product("MatMul", (8, CHANNELS), 1)
WRONG = {
    "shared": (IMAGES, conv, also_read, relu),
    "transposed": (IMAGES, deconv, also_read, relu),
    "multiple": (IMAGES, conv, op("Mul", ()), also_read, relu),
    "both-signs": (IMAGES, conv, both_signs, quantize),
    "zeros": (IMAGES, convolution(0.0), also_read, relu),
    "pool-transpose": (IMAGES, conv, pool, transpose(0, 2, 3, 1), quantize),
    "deconv-pool-transpose": (IMAGES, deconv, pool, transpose(0, 2, 1, 3), quantize),
    "merged-mean": (IMAGES, conv, shaped("Reshape", 0, -1, 7), reduce("ReduceMean", 2)),
    "flat-clip": (IMAGES, conv, shaped("Reshape", 0, -1), clip, quantize),
    "dense-shift": (ROWS, dense, also_read, op("Add", (CHANNELS,)), quantize),
}
RIGHT = {
    "private": (IMAGES, conv, relu),
    "bias": (IMAGES, convolution(0.5), also_read, relu),
    "pool": (IMAGES, conv, pool, quantize),
    "pool-transpose-bias": (IMAGES, convolution(0.5), pool, transpose(0, 2, 3, 1), quantize),
    "pool-rows": (IMAGES, conv, pool, transpose(0, 1, 3, 2), quantize),
    "transpose": (IMAGES, conv, transpose(0, 2, 3, 1), quantize),
    "merged": (IMAGES, conv, shaped("Reshape", 0, -1, 7), quantize),
    "dense-relu": (ROWS, dense, also_read, relu, quantize),
    "dense-private-shift": (ROWS, dense, op("Add", (CHANNELS,)), quantize),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong_and_mended(case, tmp_path):
    shape, *steps = case
    assert_found_and_mended(lost_scales, product_barriers, shape, steps, tmp_path, off=0.1, right=0.02)


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(case, tmp_path):
    shape, *steps = case
    assert_right_and_not_found(lost_scales, shape, steps, tmp_path, right=0.02)
