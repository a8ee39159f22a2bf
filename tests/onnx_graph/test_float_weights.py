"""Floats are found exactly where ONNX Runtime quantizes them itself, and the pass keeps them in float."""

import numpy as np
import pytest
from onnx_models import run
from qdq_steps import apply, inputs, op, saved, shaped

from tensorflow_quantization.export.onnx.passes.onnxruntime.weight_barriers import weight_barriers
from tensorflow_quantization.onnx_graph.float_weights import float_weights, weights_of_float_inputs

IMAGES, ROWS = ("n", 8, 4, 4), ("n", 8)


def quantize(f, x):
    return f.pair(x, 0.05, 128)


def not_negative(f, x):
    return f.pair(x, 0.05, 0)


def floats(op_type, *shape, **attributes):
    """The operator with float weights whose channels are unequal, so that one scale for all is not enough."""

    def step(f, x):
        weights = f.rng.normal(size=shape) * np.exp(2 * f.rng.normal(size=shape))
        return f.op(op_type, x, f.constant(weights.astype("float32")), **attributes)

    return step


def transpose(f, x):
    return f.op("Transpose", x, perm=[0, 1, 3, 2])


def max_pool(f, x):
    return f.op("MaxPool", x, kernel_shape=[2, 2])


conv, up, gemm = floats("Conv", 4, 8, 1, 1), floats("ConvTranspose", 8, 4, 2, 2), floats("Gemm", 8, 4)
matmul = floats("MatMul", 8, 4)


def limit(f, x):
    return f.op("Clip", x, *(f.constant(np.float32(end)) for end in (0, 6)))


WRONG = {
    "conv": (IMAGES, (quantize, conv, quantize)),
    "conv-transpose": (IMAGES, (quantize, up, quantize)),
    "gemm": (ROWS, (quantize, gemm, quantize)),
    "matmul-add": (ROWS, (quantize, matmul, op("Add", (4,)), quantize)),
    "relu": (IMAGES, (quantize, up, op("Relu"), quantize)),
    "clip": (IMAGES, (quantize, conv, limit, quantize)),
    "max-pool": (IMAGES, (quantize, conv, max_pool, quantize)),
    "transpose": (IMAGES, (quantize, conv, transpose, quantize)),
    "factor": (IMAGES, (quantize, conv, op("Mul", (4, 1, 1)), quantize)),
    "moved": (IMAGES, (quantize, transpose, up, quantize)),
    "flattened": (IMAGES, (quantize, shaped("Reshape", -1, 8), gemm, quantize)),
}
RIGHT = {
    "float-input": (IMAGES, (conv, quantize)),
    "float-output": (IMAGES, (quantize, up)),
    "matmul": (ROWS, (quantize, matmul, quantize)),
    "matmul-number": (ROWS, (quantize, matmul, op("Add", ()), quantize)),
    "matmul-add-relu": (ROWS, (quantize, matmul, op("Add", (4,)), op("Relu"), not_negative)),
    "matmul-add-of-sequences": (("n", 5, 8), (quantize, matmul, op("Add", (4,)), quantize)),
    "matmul-mul": (ROWS, (quantize, matmul, op("Mul", (4,)), quantize)),
    "matmul-sub": (ROWS, (quantize, matmul, op("Sub", (4,)), quantize)),
    "sigmoid": (IMAGES, (quantize, conv, op("Sigmoid"), quantize)),
    "leaky-relu": (IMAGES, (quantize, conv, op("LeakyRelu"), quantize)),
}


def off(path, x):
    """How far ONNX Runtime's optimizer moves the outputs, relative to the largest value."""
    (expected,), (actual,) = (run(path, [x], optimize) for optimize in (False, True))
    return np.abs(actual - expected).max() / np.abs(expected).max()


def assert_mended(find, shape, steps, x, folder, more_than):
    """ONNX Runtime computes a file wrong, by more than this, and the pass makes it right."""
    path, graph = saved(folder / "model.onnx", shape, steps)
    assert off(path, x) > more_than
    changed, mended = apply(weight_barriers, graph, folder / "mended.onnx")
    assert changed == 1 and not list(find(graph))
    assert off(mended, x) < 1e-5


def assert_right_and_not_found(find, shape, steps, folder):
    path, graph = saved(folder / "model.onnx", shape, steps)
    assert not list(find(graph))
    assert off(path, inputs(shape)) < 1e-5


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_would_be_quantized_are_found_and_kept(tmp_path, name):
    shape, steps = WRONG[name]
    assert_mended(float_weights, shape, steps, inputs(shape), tmp_path, more_than=0.02)


@pytest.mark.parametrize("name", RIGHT)
def test_weights_that_stay_in_float_are_not_found(tmp_path, name):
    assert_right_and_not_found(float_weights, *RIGHT[name], tmp_path)


def integers(op_type, *shape, axis=None, **attributes):
    """The operator with int8 weights, of one scale or of a scale for each channel."""

    def step(f, x):
        weights = f.rng.integers(-127, 128, shape).astype("int8")
        count = () if axis is None else (shape[axis],)
        constants = weights, np.full(count, 0.01, "float32"), np.zeros(count, "int8")
        along = {} if axis is None else {"axis": axis}
        return f.op(op_type, x, f.op("DequantizeLinear", *map(f.constant, constants), **along), **attributes)

    return step


LONG, SEQUENCE = ("n", 64), ("n", 5, 64)
ROUNDED = {
    "matmul": (LONG, integers("MatMul", 64, 32, axis=1)),
    "one-scale": (LONG, integers("MatMul", 64, 32)),
    "sequence": (SEQUENCE, integers("MatMul", 64, 32, axis=1)),
    "gemm": (LONG, integers("Gemm", 64, 32, axis=1)),
}
EXACT = {
    "turned": (LONG, integers("Gemm", 32, 64, axis=0, transB=1)),
    "conv": (("n", 64, 4, 4), integers("Conv", 32, 64, 1, 1, axis=0)),
}


def with_a_large_channel(shape):
    x = inputs(shape)
    x[:, ..., 3] *= 100
    return x


@pytest.mark.parametrize("name", ROUNDED)
def test_floats_that_would_be_quantized_for_integer_weights(tmp_path, name):
    shape, step = ROUNDED[name]
    assert_mended(weights_of_float_inputs, shape, [step], with_a_large_channel(shape), tmp_path, more_than=1e-3)


@pytest.mark.parametrize("name", EXACT)
def test_floats_that_integer_weights_multiply_exactly(tmp_path, name):
    shape, step = EXACT[name]
    assert_right_and_not_found(weights_of_float_inputs, shape, [step], tmp_path)
