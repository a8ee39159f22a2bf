"""Each constant is found exactly where OpenVINO itself applies it to the wrong axis, and the pass makes it right."""

import platform

import numpy as np
import pytest
from qdq_steps import assert_found_and_mended, assert_right_and_not_found, numbers, op, shaped

from tensorflow_quantization.export.onnx.passes.openvino.constant_barriers import constant_barriers
from tensorflow_quantization.onnx_graph.misplaced_constants import misplaced_constants

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

STEPS, IMAGES = ("n", 6, 8), ("n", 7, 6, 8)
UNITS = 7


def product(f, x, zero=0):
    """Integers times integers; weights so small that sums do not saturate on a processor without VNNI."""
    weights = f.rng.integers(-60, 60, (8, UNITS)).astype("int8")
    constants = weights, numbers(UNITS) / 100, np.zeros(UNITS, "int8")
    weights = f.op("DequantizeLinear", *map(f.constant, constants), axis=1)
    return f.op("MatMul", f.pair(x, 0.03, zero), weights)


def shifted_product(f, x):
    return product(f, x, 128)


def float_product(f, x):
    return f.op("MatMul", x, f.floats(8, UNITS))


def of_activations(f, x):
    """Integers times integers, neither of which are weights."""
    return f.op("MatMul", f.pair(x, 0.03, 0, np.int8), f.pair(f.op("Transpose", x, perm=[0, 2, 1]), 0.03, 0, np.int8))


def barrier(f, x):
    return f.op("Max", x, f.constant(np.finfo(np.float32).min))


bias, relu = op("Add", (UNITS,)), op("Relu")
WRONG = {
    "mul": (STEPS, product, op("Mul", (6, 1))),
    "div": (STEPS, product, op("Div", (6, 1))),
    "all": (STEPS, product, op("Mul", (6, UNITS))),
    "bias": (STEPS, product, bias, op("Mul", (6, 1))),
    "factor": (STEPS, product, op("Mul", ()), op("Mul", (6, 1))),
    "negative": (STEPS, product, op("Neg"), op("Mul", (6, 1))),
    "images": (IMAGES, product, op("Mul", (6, 1))),
    "squeeze": (STEPS, product, shaped("Unsqueeze", 1), shaped("Squeeze", 1), op("Mul", (6, 1))),
    "normalization": (IMAGES, product, op("BatchNormalization", (7,), (7,), (7,), (7,))),
    "axis-1": (IMAGES, product, op("Mul", (7, 1, 1))),
    "axis-1-add": (IMAGES, product, op("Add", (7, 1, 1))),
    "axis-1-slopes": (IMAGES, product, op("PRelu", (7, 1, 1))),
    "axis-1-float": (IMAGES, float_product, op("Sub", (7, 1, 1))),
    "axis-1-relu": (IMAGES, float_product, relu, op("Mul", (7, 1, 1))),
}
RIGHT = {
    "zero-point": (STEPS, shifted_product, op("Mul", (6, 1))),
    "axis-1-zero-point": (IMAGES, shifted_product, op("Add", (7, 1, 1))),
    "units": (STEPS, product, op("Mul", (UNITS,))),
    "add": (STEPS, product, op("Add", (6, 1))),
    "relu": (STEPS, product, relu, op("Mul", (6, 1))),
    "float": (STEPS, float_product, op("Mul", (6, 1))),
    "activations": (STEPS, of_activations, op("Mul", (6, 1))),
    "fixed": ((3, *STEPS[1:]), product, op("Mul", (6, 1))),
    "max": (STEPS, product, barrier, op("Mul", (6, 1))),
    "images": (IMAGES, product, op("Add", (6, 1))),
    "images-float": (IMAGES, float_product, op("Mul", (6, 1))),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong_and_mended(case, tmp_path):
    shape, *steps = case
    assert_found_and_mended(misplaced_constants, constant_barriers, shape, steps, tmp_path, off=0.05, right=0.001)


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(case, tmp_path):
    shape, *steps = case
    assert_right_and_not_found(misplaced_constants, shape, steps, tmp_path, right=0.001)
