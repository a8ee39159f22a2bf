import keras
import ml_dtypes
import numpy as np
import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st
from onnx_graphs import Graph

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.passes.common.float16_scales import float16_scales
from tensorflow_quantization.onnx_graph.queries import constant

SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


def dequantized(scale, integers, axis=None, zero_point=None):
    """The weight before the pass and after it, and the scale after it as float16 holds it."""
    g = Graph(3)
    zero_point = np.zeros(np.shape(scale), np.int8) if zero_point is None else zero_point
    g.op("DequantizeLinear", integers, np.asarray(scale, "float32"), zero_point, axis=axis)
    (node,) = [node for node in g.builder.graph if node.op_type == "DequantizeLinear"]
    shape = [-1 if i == (axis or 0) else 1 for i in range(integers.ndim)]

    def weight():
        found, factor = constant(node.inputs[0]), constant(node.inputs[1])
        factor = factor.reshape(shape) if factor.ndim else factor
        zeros = zero_point.reshape(shape) if zero_point.ndim else zero_point
        return (found.astype("float64") - zeros) * factor

    before = weight()
    changed = float16_scales(g.builder)
    return before, weight(), constant(node.inputs[1]), changed


@given(st.lists(st.floats(1e-12, 1e-3), min_size=1, max_size=6), st.integers(0, 1), st.integers(0, 2**32 - 1))
def test_no_weight_moves_by_more_than_half_a_step(scales, axis, seed):
    shape = (len(scales), 5) if axis == 0 else (5, len(scales))
    integers = np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)
    before, after, scale, _ = dequantized(scales, integers, axis)
    steps = np.maximum(scale, np.asarray(scales, "float32")).reshape([-1 if i == axis else 1 for i in range(2)])
    assert np.all(np.abs(after - before) <= 0.5001 * steps)
    small = scale < np.finfo(np.float16).smallest_normal
    np.testing.assert_array_equal(scale[small], scale[small].astype("float16").astype("float32"))
    assert np.all(scale[small] > 0)


def test_other_scales_stay():
    integers = np.arange(-5, 5, dtype=np.int8).reshape(2, 5)
    *_, scale, changed = dequantized([0.1, 1e-4], integers, 0)
    assert not changed
    np.testing.assert_array_equal(scale, np.float32([0.1, 1e-4]))


def test_a_channel_that_is_almost_zero_becomes_zero():
    integers = np.full((2, 5), 100, np.int8)
    before, after, scale, changed = dequantized([1e-12, 0.5], integers, 0)
    assert changed == 1
    np.testing.assert_array_equal(after[0], 0)
    np.testing.assert_array_equal(after[1], before[1])
    assert scale[0] == np.float32(SMALLEST)


def test_one_scale_with_a_zero_point():
    integers = np.asarray([[0, 50, 255]], np.uint8)
    before, after, scale, _ = dequantized(np.float32(1.3e-7), integers, zero_point=np.asarray(10, np.uint8))
    assert np.all(np.abs(after - before) <= 0.5001 * scale)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_network_with_a_dead_channel_exports(tmp_path, target):
    model = small_models.cnn()
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv").kernel).copy()
    kernel[..., 1] *= 1e-9
    model.get_layer("conv").kernel.assign(kernel)
    images = small_models.data_for(model)
    quantized = calibrate(quantize_model(model, target=target), images, verbose=0)
    export_onnx(quantized, tmp_path / "m.onnx", precision="float16", verify_with=images)


def test_scales_of_blocks():
    g = Graph(3, opset=21)
    integers = np.full((6, 2), 100, np.int8)
    scale = np.asarray([[1e-12, 0.5], [0.5, 1.3e-7], [0.5, 0.5]], "float32")
    g.op("DequantizeLinear", integers, scale, axis=0, block_size=2)
    assert float16_scales(g.builder) == 1
    (node,) = [node for node in g.builder.graph if node.op_type == "DequantizeLinear"]
    again, raised = constant(node.inputs[0]), constant(node.inputs[1])
    np.testing.assert_array_equal(again[:2], [[0, 100]] * 2)
    np.testing.assert_allclose(again[2:4, 1] * raised[1, 1], 100 * scale[1, 1], atol=0.5 * raised[1, 1])
    np.testing.assert_array_equal(again[4:], 100)


def test_numbers_of_fp8_are_not_rounded_to_integers():
    g = Graph(3, opset=19)
    numbers = np.asarray([[0.5, 0.75, 3.5]], ml_dtypes.float8_e4m3fn)
    scale = np.float32(4.5e-5)
    g.op("DequantizeLinear", numbers, scale, np.zeros((), ml_dtypes.float8_e4m3fn))
    assert float16_scales(g.builder) == 1
    (node,) = [node for node in g.builder.graph if node.op_type == "DequantizeLinear"]
    again = constant(node.inputs[0]).astype("float32") * constant(node.inputs[1])
    np.testing.assert_allclose(again, numbers.astype("float32") * scale, rtol=0.07)
