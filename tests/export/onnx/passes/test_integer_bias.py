import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import RNG, Graph

from tensorflow_quantization.export.onnx.passes.onnxruntime.integer_bias import integer_bias


def product_with_bias(g, x, whole_steps=False, highest=127):
    """The product of what has the scale 0.02 with a matrix, plus a bias: any, or one of whole steps of the products."""
    integers = RNG.integers(-highest, highest + 1, (6, 4)).astype(np.int8)
    scale = RNG.uniform(0.01, 0.02, 4).astype("float32")
    weight = g.op("DequantizeLinear", integers, scale, np.zeros(4, np.int8), axis=1)
    bias = RNG.integers(-5000, 5000, 4) * np.float32(0.02) * scale if whole_steps else RNG.normal(size=4)
    return g.op("Add", g.op("MatMul", x, weight), bias.astype("float32"))


@pytest.mark.parametrize("quantized_output", [False, True])
def test_bias_of_a_product_that_gives_floats_becomes_an_integer(tmp_path, quantized_output):
    g = Graph(6)
    x = g.quantized(g.x)
    x.shape = ir.Shape(["batch", 6])
    y = product_with_bias(g, x)
    if quantized_output:
        y = g.quantized(y)
    # The bias is off by half of a scale at most, which is at most 0.02 * 0.02.
    counts = g.check(tmp_path, [y], integer_bias, 2e-4)
    assert counts["Gemm"] == (0 if quantized_output else 1)
    assert ("its sum is quantized" in g.log) == quantized_output


@pytest.mark.parametrize("quantized_output", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_so_does_that_of_a_product_of_sequences(tmp_path, quantized_output, moved):
    g = Graph(*((5, 2, 3) if moved else (5, 6)))
    x = g.quantized(g.x)
    if moved:  # the shape is known of what was moved
        x = g.quantized(g.op("Reshape", g.op("Transpose", x, perm=[0, 1, 3, 2]), np.array([0, 0, 6])))
    y = product_with_bias(g, x, whole_steps=True)
    counts = g.check(tmp_path, [g.quantized(y, 0.1) if quantized_output else y], integer_bias)
    assert counts["Gemm"] == 1 and counts["MatMul"] == 0


def test_the_bias_of_sequences_of_unknown_length_stays(tmp_path):
    g = Graph(5, 6)
    x = g.quantized(g.x)
    x.shape = ir.Shape(["batch", None, 6])
    assert g.check(tmp_path, [product_with_bias(g, x)], integer_bias)["Gemm"] == 0
    assert "the length of the sequence is not known" in g.log


@pytest.mark.parametrize("whole_steps", [False, True])
def test_the_bias_of_a_product_with_few_bits_stays_unless_it_is_in_whole_steps(tmp_path, whole_steps):
    g = Graph(5, 6)
    y = product_with_bias(g, g.quantized(g.x), whole_steps, highest=7)
    counts = g.check(tmp_path, [g.quantized(y, 0.1)], integer_bias)
    assert counts["Gemm"] == whole_steps
    assert ("steps of its bias are too large" in g.log) != whole_steps


def test_a_bias_of_more_steps_than_int32_has_stays_float(tmp_path):
    # It saturated, and the file computed something else.
    g = Graph(6)
    x = g.quantized(g.x)
    x.shape = ir.Shape(["batch", 6])
    integers = RNG.integers(-127, 128, (6, 4)).astype(np.int8)
    weight = g.op("DequantizeLinear", integers, np.full(4, 1e-9, np.float32), np.zeros(4, np.int8), axis=1)
    y = g.op("Add", g.op("MatMul", x, weight), np.ones(4, np.float32))
    assert g.check(tmp_path, [y], integer_bias)["Gemm"] == 0
    assert "too small for int32" in g.log
