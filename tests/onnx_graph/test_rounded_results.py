"""Each result is found exactly where OpenVINO itself rounds it to an integer, and the pass makes it right."""

import platform

import numpy as np
import pytest
from qdq_steps import assert_found_and_mended, assert_right_and_not_found, op

from tensorflow_quantization.export.onnx.passes.openvino.rounding_barriers import rounding_barriers
from tensorflow_quantization.onnx_graph.rounded_results import rounded_results

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

SHAPE = ("n", 8, 6, 6)


def clip(*limits):
    return lambda f, x: f.op("Clip", x, *(f.constant(np.float32(limit)) for limit in limits))


def limit(op_type, number):
    return lambda f, x: f.op(op_type, x, f.constant(np.float32(number)))


def dequantized(f, x, zero=128):
    return f.pair(x, 0.0473, zero)


def convolved(f, x):
    return dequantized(f, f.conv(dequantized(f, x)))


def average(f, x):
    return f.op("AveragePool", x, kernel_shape=[2, 2])


def also_read(f, x):
    f.outputs.append(f.op("Neg", x))
    return x


WRONG = {
    "average-mul": (dequantized, average, op("Mul", ())),
    "average-neg": (convolved, average, op("Neg")),
    "average-shared": (dequantized, average, also_read, op("Identity")),
    "clip": (dequantized, clip(0, 0.97)),
    "both": (dequantized, clip(-1, 1)),
    "low": (dequantized, clip(-0.33)),
    "conv": (convolved, clip(0, 0.97)),
    "moved": (dequantized, lambda f, x: f.op("Transpose", x, perm=[0, 2, 3, 1]), clip(0, 0.97)),
    "pool": (dequantized, lambda f, x: f.op("MaxPool", x, kernel_shape=[2, 2]), clip(0, 0.97)),
    "factor": (dequantized, op("Mul", ()), clip(0, 0.97)),
    "max-min": (dequantized, limit("Max", -1), limit("Min", 0.97)),
    "min-max": (dequantized, limit("Min", 0.97), limit("Max", -1)),
}
RIGHT = {
    "average": (dequantized, average, lambda f, x: f.pair(x, 0.03, 128)),
    "average-of-floats": (dequantized, op("Sigmoid"), average, op("Neg")),
    "global": (dequantized, op("GlobalAveragePool"), op("Neg")),
    "zero": (dequantized, clip(0)),
    "relu": (dequantized, op("Relu")),
    "max": (dequantized, limit("Max", 0.2)),
    "min": (dequantized, limit("Min", 0.2)),
    "float": (dequantized, op("Sigmoid"), clip(0, 0.97)),
    "not-dequantized": (clip(0, 0.97), dequantized),
    "barrier": (dequantized, limit("Max", np.finfo(np.float32).min), clip(0, 0.97)),
}


@pytest.mark.parametrize("steps", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong_and_mended(steps, tmp_path):
    assert_found_and_mended(rounded_results, rounding_barriers, SHAPE, steps, tmp_path, off=0.002, right=1e-5)


@pytest.mark.parametrize("steps", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(steps, tmp_path):
    assert_right_and_not_found(rounded_results, SHAPE, steps, tmp_path, right=1e-5)
