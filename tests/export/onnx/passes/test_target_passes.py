"""The passes that move or re-encode quantizers, on tiny graphs: the nodes that are left, the same numbers as before."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import RNG, Graph

from tensorflow_quantization.export.onnx.passes import run_passes
from tensorflow_quantization.export.onnx.passes.affine_as_batch_norm import affine_as_batch_norm
from tensorflow_quantization.export.onnx.passes.batch_norm_as_convolution import batch_norm_as_convolution
from tensorflow_quantization.export.onnx.passes.counted_padding import counted_padding
from tensorflow_quantization.export.onnx.passes.drop_repeated_quantizers import drop_repeated_quantizers
from tensorflow_quantization.export.onnx.passes.integer_bias import integer_bias
from tensorflow_quantization.export.onnx.passes.integer_convolution_bias import integer_convolution_bias
from tensorflow_quantization.export.onnx.passes.integer_padding import integer_padding
from tensorflow_quantization.export.onnx.passes.merge_quantizers import merge_quantizers
from tensorflow_quantization.export.onnx.passes.quantize_before_reshape import quantize_before_reshape
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import repeat_quantizers
from tensorflow_quantization.export.onnx.passes.scaling_into_quantizers import scaling_into_quantizers
from tensorflow_quantization.export.onnx.passes.strided_pointwise import strided_pointwise
from tensorflow_quantization.export.onnx.passes.unsigned_activations import unsigned_activations


def conv(g, x, channels_in, channels_out, size=1, **attributes):
    return g.op("Conv", x, g.weight(channels_out, channels_in, size, size), kernel_shape=[size, size], **attributes)


@pytest.mark.parametrize(
    "moving",
    [
        lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2]),
        lambda g, x: g.op("Transpose", x, perm=[0, 1, 3, 2]),
        lambda g, x: g.op("Pad", x, np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    ],
)
def test_quantizer_is_repeated_behind_what_moves_integers(tmp_path, moving):
    g = Graph(2, 6, 6)
    counts = g.check(tmp_path, [conv(g, moving(g, g.quantized(g.x)), 2, 3)], repeat_quantizers)
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 2


def test_quantizer_is_not_repeated_for_floats_only(tmp_path):
    g = Graph(2, 6, 6)
    counts = g.check(tmp_path, [g.op("Exp", g.op("MaxPool", g.quantized(g.x), kernel_shape=[2, 2]))], repeat_quantizers)
    assert counts["QuantizeLinear"] == 1


def test_padding_with_another_number_is_no_moving(tmp_path):
    g = Graph(2, 6, 6)
    padded = g.op("Pad", g.quantized(g.x), np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(0.013))
    assert g.check(tmp_path, [conv(g, padded, 2, 3)], repeat_quantizers)["QuantizeLinear"] == 1


@pytest.mark.parametrize("shared", [True, False])
def test_shared_quantizer_of_a_concatenation_is_that_of_its_parts(tmp_path, shared):
    g = Graph(2, 4, 4)
    joined = g.op("Concat", g.op("Relu", g.x), g.op("Sigmoid", g.x), axis=1)
    counts = g.check(tmp_path, [conv(g, g.quantized(joined, shared=shared), 4, 3)], repeat_quantizers)
    assert counts["QuantizeLinear"] == (3 if shared else 1)


def test_equal_quantizers_of_one_tensor_become_one(tmp_path):
    g = Graph(2, 4, 4)
    outputs = [conv(g, g.quantized(g.x), 2, 3), conv(g, g.quantized(g.x), 2, 3)]
    assert g.check(tmp_path, outputs, merge_quantizers)["QuantizeLinear"] == 1


@pytest.mark.parametrize(("target", "pairs"), [(None, 2), ("tensorrt", 2), ("onnxruntime", 1), ("openvino", 1)])
def test_each_reader_has_a_quantizer_of_its_own_but_where_the_runtime_wants_one(tmp_path, target, pairs):
    g = Graph(2, 4, 4)
    outputs = [conv(g, g.quantized(g.x), 2, 3), conv(g, g.quantized(g.x), 2, 3)]
    counts = g.check(tmp_path, outputs, lambda builder: run_passes(builder, target))
    assert counts["QuantizeLinear"] == pairs
    assert counts["DequantizeLinear"] == pairs


def test_quantizers_that_differ_stay_apart(tmp_path):
    g = Graph(2, 4, 4)
    outputs = [conv(g, g.quantized(g.x), 2, 3), conv(g, g.quantized(g.x, scale=0.03), 2, 3)]
    assert g.check(tmp_path, outputs, merge_quantizers)["QuantizeLinear"] == 2


def test_strides_of_pointwise_convolutions_become_a_pool(tmp_path):
    g = Graph(2, 6, 6)
    x = g.quantized(g.x)
    counts = g.check(tmp_path, [conv(g, x, 2, 3, strides=[2, 2]) for _ in range(2)], strided_pointwise, 1e-6)
    assert counts["MaxPool"] == 1


@pytest.mark.parametrize("other", [{"size": 1}, {"size": 3, "strides": [2, 2]}])
def test_strides_stay_where_another_convolution_reads_the_tensor(tmp_path, other):
    g = Graph(2, 6, 6)
    x = g.quantized(g.x)
    outputs = [conv(g, x, 2, 3, strides=[2, 2]), conv(g, x, 2, 3, **other)]
    assert g.check(tmp_path, outputs, strided_pointwise)["MaxPool"] == 0


@pytest.mark.parametrize(
    ("zero_point", "counted", "pads"), [(3, 1, 1), (0, 1, 0), (3, 0, 0)], ids=["offset", "symmetric", "not counted"]
)
def test_counted_padding_is_quantized_before_the_pool(tmp_path, zero_point, counted, pads):
    g = Graph(2, 5, 5)
    x = g.quantized(g.x, zero_point=zero_point)
    y = g.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1], count_include_pad=counted)
    counts = g.check(tmp_path, [y], counted_padding)
    assert counts["Pad"] == pads
    assert counts["QuantizeLinear"] == 1 + pads


def test_signed_integers_become_unsigned_around_128(tmp_path):
    g = Graph(2, 4, 4)
    counts = g.check(tmp_path, [conv(g, g.quantized(g.x), 2, 3)], unsigned_activations)
    assert counts["Clip"] == 0
    assert zero_points(g) == {128}


def test_integers_of_nothing_negative_keep_zero_point_0_and_their_upper_limit(tmp_path):
    g = Graph(2, 4, 4)
    y = conv(g, g.quantized(g.op("Relu", g.x), scale=0.01), 2, 3)  # 127 * 0.01 is exceeded by the data
    assert g.check(tmp_path, [y], unsigned_activations)["Clip"] == 1
    assert zero_points(g) == {0}


def zero_points(g):
    nodes = [node for node in g.builder.graph if node.op_type == "QuantizeLinear"]
    values = [node.inputs[2].const_value.numpy() for node in nodes]
    assert all(value.dtype == np.uint8 for value in values)
    return {int(value) for value in values}


def product_with_bias(g, x, whole_steps=False):
    """The product of what has the scale 0.02 with a matrix, plus a bias: any, or one of whole steps of the products."""
    integers = RNG.integers(-127, 128, (6, 4)).astype(np.int8)
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


@pytest.mark.parametrize("activation", [None, "Relu"])
def test_batch_norm_between_quantizers_becomes_a_convolution(tmp_path, activation):
    g = Graph(4, 3, 3)
    # Of a factor, zero, one that is negative, and one that is nothing beside its shift.
    y = g.batch_norm(g.quantized(g.x), 4, gamma=[0.7, 0.0, -1.3, 1e-12])
    y.shape = ir.Shape(["batch", 4, 3, 3])
    y = g.op(activation, y) if activation else y
    counts = g.check(tmp_path, g.quantized(y), batch_norm_as_convolution)
    assert counts["Conv"] == 1
    assert counts["BatchNormalization"] == 0


def test_bias_of_a_batch_norm_as_convolution_fits_into_32_bits(tmp_path):
    g = Graph(4, 3, 3)
    y = g.batch_norm(g.quantized(g.x), 4, gamma=[1.0, 1e-6, 1e-12, 0.0])
    y.shape = ir.Shape(["batch", 4, 3, 3])
    g.check(tmp_path, g.quantized(y), batch_norm_as_convolution)
    (convolution,) = [node for node in g.builder.graph if node.op_type == "Conv"]
    scale = convolution.inputs[1].producer().inputs[1].const_value.numpy()
    bias = convolution.inputs[2].const_value.numpy()
    assert np.abs(bias / (0.02 * scale)).max() < 2**31


def test_batch_norm_that_writes_floats_stays(tmp_path):
    g = Graph(4, 3, 3)
    y = g.batch_norm(g.quantized(g.x), 4)
    y.shape = ir.Shape(["batch", 4, 3, 3])
    assert g.check(tmp_path, y, batch_norm_as_convolution)["Conv"] == 0


def test_integers_are_padded_with_their_zero_point(tmp_path):
    g = Graph(2, 4, 4)
    x = g.op("Pad", g.quantized(g.x, zero_point=7), np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = g.op("MaxPool", g.quantized(x, zero_point=7), kernel_shape=[2, 2])
    counts = g.check(tmp_path, y, integer_padding)
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 1


def test_floats_are_padded_where_the_quantizers_differ(tmp_path):
    g = Graph(2, 4, 4)
    x = g.op("Pad", g.quantized(g.x, zero_point=7), np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    counts = g.check(tmp_path, g.quantized(x, zero_point=8), integer_padding)
    assert counts["QuantizeLinear"] == 2


def test_quantizer_goes_before_the_reshape(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Reshape", g.op("GlobalAveragePool", g.x), np.array([0, 3]))
    y = g.op("MatMul", g.quantized(y), g.int8_weight(3, 5, axis=1))
    g.check(tmp_path, y, quantize_before_reshape)
    order = [node.op_type for node in g.builder.graph if node.op_type != "DequantizeLinear"]
    assert order == ["GlobalAveragePool", "QuantizeLinear", "Reshape", "MatMul"]


def test_quantizer_stays_behind_a_reshape_that_others_read(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Reshape", g.op("GlobalAveragePool", g.x), np.array([0, 3]))
    outputs = [g.op("MatMul", g.quantized(y), g.int8_weight(3, 5, axis=1)), g.op("Exp", y)]
    g.check(tmp_path, outputs, quantize_before_reshape)
    assert [node.op_type for node in g.builder.graph][:2] == ["GlobalAveragePool", "Reshape"]


@pytest.mark.parametrize(("scale", "left"), [(0.02, 1), (0.03, 2)])
def test_quantizer_behind_a_pool_of_the_same_integers_is_dropped(tmp_path, scale, left):
    g = Graph(2, 4, 4)
    pooled = g.op("MaxPool", g.quantized(g.x), kernel_shape=[2, 2])
    y = conv(g, g.quantized(pooled, scale=scale), 2, 3)
    assert g.check(tmp_path, y, drop_repeated_quantizers)["QuantizeLinear"] == left


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


CHANNELS = np.array([0.5, -0.3, 0.2], "float32").reshape(3, 1, 1)


def shaped(value, *shape):
    value.shape = ir.Shape(["batch", *shape])
    return value


def test_preprocessing_of_channels_before_a_quantizer_is_one_operator(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Div", g.op("Sub", g.op("Mul", g.x, np.float32(1 / 255)), CHANNELS), np.abs(CHANNELS))
    counts = g.check(tmp_path, g.quantized(shaped(y, 3, 4, 4)), affine_as_batch_norm)
    assert counts["BatchNormalization"] == 1
    assert not counts["Mul"] + counts["Sub"] + counts["Div"]


def test_preprocessing_by_a_single_number_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Add", g.op("Mul", g.x, np.float32(1 / 127.5)), np.float32(-1))
    assert g.check(tmp_path, g.quantized(shaped(y, 3, 4, 4)), affine_as_batch_norm)["Mul"] == 1


def test_preprocessing_that_something_else_reads_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = shaped(g.op("Sub", g.x, CHANNELS), 3, 4, 4)
    counts = g.check(tmp_path, [g.quantized(y), g.op("Exp", y)], affine_as_batch_norm)
    assert counts["Sub"] == 1 and not counts["BatchNormalization"]


@pytest.mark.parametrize("factor", [np.float32(1 / 255), np.full((3, 1, 1), 1 / 255, "float32")], ids=["one", "all"])
def test_a_factor_in_front_of_a_quantizer_is_in_its_scale(tmp_path, factor):
    g = Graph(3, 4, 4)
    y = g.op("Div", g.op("Mul", g.x, factor), np.float32(0.1))
    quantized = g.quantized(shaped(y, 3, 4, 4), scale=0.01)
    counts = g.check(tmp_path, quantized, scaling_into_quantizers)
    assert not counts["Mul"] + counts["Div"]
    before, after = (
        node.inputs[1].const_value.numpy() for node in (quantized.producer().inputs[0].producer(), quantized.producer())
    )
    np.testing.assert_allclose(before, after * 25.5, rtol=1e-6)


@pytest.mark.parametrize("factor", [np.float32(-0.5), np.abs(CHANNELS)], ids=["negative", "by channel"])
def test_other_factors_in_front_of_a_quantizer_stay(tmp_path, factor):
    g = Graph(3, 4, 4)
    quantized = g.quantized(shaped(g.op("Mul", g.x, factor), 3, 4, 4), scale=0.01)
    assert g.check(tmp_path, quantized, scaling_into_quantizers)["Mul"] == 1


def test_a_factor_of_what_something_else_reads_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = shaped(g.op("Mul", g.x, np.float32(0.5)), 3, 4, 4)
    assert g.check(tmp_path, [g.quantized(y), g.op("Exp", y)], scaling_into_quantizers)["Mul"] == 1


def test_a_factor_within_a_model_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = shaped(g.op("Mul", g.op("Exp", g.x), np.float32(0.5)), 3, 4, 4)
    assert g.check(tmp_path, g.quantized(y), scaling_into_quantizers)["Mul"] == 1


def test_a_factor_and_a_shift_in_front_of_a_quantizer_stay(tmp_path):
    g = Graph(3, 4, 4)
    y = shaped(g.op("Add", g.op("Mul", g.x, np.float32(1 / 127.5)), np.float32(-1)), 3, 4, 4)
    assert g.check(tmp_path, g.quantized(y), scaling_into_quantizers)["Mul"] == 1


@pytest.mark.parametrize(("steps", "integers"), [(1.0, 2), (1.3, 1)])
def test_bias_of_a_convolution_in_whole_steps_becomes_integers(tmp_path, steps, integers):
    g = Graph(2, 4, 4)
    x = g.op("MaxPool", g.quantized(g.x, scale=0.02), kernel_shape=[2, 2])
    weight = g.int8_weight(3, 2, 1, 1, axis=0)
    scale = weight.producer().inputs[1].const_value.numpy()
    bias = (np.array([5, -12000, 777]) * steps * np.float32(0.02) * scale).astype("float32")
    y = g.op("Conv", x, weight, bias, kernel_shape=[1, 1])
    counts = g.check(tmp_path, y, integer_convolution_bias, 1e-6)
    assert counts["DequantizeLinear"] == 1 + integers
