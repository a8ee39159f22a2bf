"""One tiny graph for each rule that a runtime can have: it breaks this rule.

A builder takes a fresh `QdqFile` and returns the outputs of the graph; the node that suffers is called "victim". Where
it takes the `dtype` of activations, that is of the runtime whose rules are checked, so that nothing else is wrong.
"""

import numpy as np
from onnx import TensorProto, helper

UINT8, INT8 = np.uint8, np.int8


def victim(f, x, **kwargs):
    return f.conv(x, name="victim", **kwargs)


def dense(f, x, bias=(12,), axis=0, **attributes):
    """Gemm from 16 to 12 with its weights transposed."""
    biases = () if bias is None else (f.floats(*bias),)
    return f.op("Gemm", x, f.weights(12, 16, axis=axis), *biases, name="victim", transB=1, **attributes)


def integer_bias(f, count, scale):
    scales = f.constant(np.asarray(scale, np.float32), "bias_scale")
    zeros = f.constant(np.zeros(count, np.int32), "bias_zero")
    return f.op("DequantizeLinear", f.constant(np.arange(count, dtype=np.int32) * 100), scales, zeros, axis=0)


def bias_scales(count):
    """The right ones for `weights` of this many channels and the default activation."""
    return np.float32(0.05) * np.linspace(0.01, 0.03, count, dtype=np.float32)


def negative_scale(f):
    return [victim(f, f.pair(f.input(), scale=-0.1))]


def computed_scale(f):
    scale = f.op("Abs", f.input((), "s"))
    return [f.pair(victim(f, f.pair(f.input(), scale=scale)))]


def pair_mismatch(f, dtype=UINT8):
    # Not of the input, the quantizer of which may have another scale in ONNX Runtime.
    q, _, zero = f.quantize(f.op("Relu", f.input()), 0.1, dtype=dtype)
    x = f.op("DequantizeLinear", q, f.constant(np.float32(0.2)), zero, name="victim")
    return [f.pair(f.conv(x), dtype=dtype)]


def per_channel_in_opset_12(f, dtype=UINT8):
    f.opset = 12
    x = f.pair(f.input(), dtype=dtype)
    return [f.pair(f.op("Conv", x, f.weights(8, 8, 3, 3)), dtype=dtype)]


def conv_axis_1(f, dtype=UINT8):
    x = f.pair(f.input(), dtype=dtype)
    return [f.pair(f.op("Conv", x, f.weights(8, 8, 3, 3, axis=1), name="victim"), dtype=dtype)]


def gemm_axis_1(f):
    return [f.pair(dense(f, f.pair(f.input((1, 16))), axis=1))]


def matmul_axis_0(f, n=12):
    x = f.pair(f.input((1, 5, 16)))
    return [f.op("MatMul", x, f.weights(16, n, axis=0), name="victim")]


def moved_bytes(f):
    return [f.op("Cast", f.op("Transpose", f.input(dtype=TensorProto.UINT8), name="victim"), to=TensorProto.FLOAT)]


def cast_int16(f):
    return [f.op("Cast", f.input(dtype=TensorProto.INT16), name="victim", to=TensorProto.FLOAT)]


def unknown_domain(f):
    return [f.op("Mystery", f.input(), name="victim", domain="my.company")]


def unknown_operator(f):
    return [f.op("Mystery", f.input(), name="victim")]


def float_model(f):
    return [f.op("Conv", f.input(), f.floats(8, 8, 3, 3), name="victim")]


def one_layer_float(f, dtype=UINT8):
    x = f.pair(f.conv(f.pair(f.input(), dtype=dtype)), dtype=dtype)
    return [f.op("Conv", f.op("Sin", x), f.floats(8, 8, 3, 3), name="victim")]


def float_input(f):
    return [f.pair(victim(f, f.op("Sin", f.input())))]


def float_weights(f, dtype=UINT8):
    return [f.pair(f.op("Conv", f.pair(f.input(), dtype=dtype), f.floats(8, 8, 3, 3), name="victim"), dtype=dtype)]


def flatten_before_gemm(f):
    return [f.pair(dense(f, f.op("Flatten", f.pair(f.input((1, 4, 4))))))]


def mirrored_padding(f):
    return [f.pair(victim(f, f.op("Pad", f.pair(f.input()), f.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")))]


def reshape_before_conv(f, dtype=UINT8):
    weights = f.op("Reshape", f.weights(8, 8, 9), f.ints(8, 8, 3, 3))
    return [f.pair(f.op("Conv", f.pair(f.input(), dtype=dtype), weights, name="victim"), dtype=dtype)]


def transpose_before_conv(f, dtype=UINT8):
    weights = f.op("Transpose", f.weights(3, 3, 8, 8, axis=3), perm=[3, 2, 0, 1])
    return [f.pair(f.op("Conv", f.pair(f.input(), dtype=dtype), weights, name="victim"), dtype=dtype)]


def int16_activations(f):
    f.opset = 21
    return [f.pair(victim(f, f.pair(f.input(), dtype=np.int16)), dtype=np.int16)]


def int16_weights(f):
    f.opset = 21
    x = f.pair(f.input())
    return [f.pair(f.op("Conv", x, f.weights(8, 8, 3, 3, dtype=np.int16), name="victim"))]


def float16(f):
    f.opset = 19
    x, half = f.input(dtype=TensorProto.FLOAT16), f.constant(np.float16(0.05))
    q = f.op("QuantizeLinear", x, half, f.constant(UINT8(0)))
    x = f.op("DequantizeLinear", q, half, f.constant(UINT8(0)))
    scales = f.constant(np.full(8, 0.02, np.float16))
    weights = f.op("DequantizeLinear", f.constant(np.ones((8, 8, 3, 3), INT8)), scales, axis=0)
    return [f.op("Cast", f.op("Conv", x, weights, name="victim"), to=TensorProto.FLOAT)]


def per_channel_activation(f, dtype=UINT8):
    x = f.pair(f.input(), np.full(8, 0.05), np.zeros(8), dtype, axis=1)
    return [f.pair(victim(f, x), dtype=dtype)]


def conv_transpose(f, axis=1, dtype=UINT8, **attributes):
    weights = f.weights(8, 8 // attributes.get("group", 1), 3, 3, axis=axis)
    x = f.pair(f.input(), dtype=dtype)
    return [f.pair(f.op("ConvTranspose", x, weights, name="victim", **attributes), dtype=dtype)]


def gemm_alpha(f):
    return [f.pair(dense(f, f.pair(f.input((1, 16))), alpha=0.5))]


def gemm_matrix_bias(f):
    return [f.pair(dense(f, f.pair(f.input((1, 16))), bias=(1, 12)))]


def conv_bias_scale(f, dtype=UINT8, scale=7.0):
    bias = integer_bias(f, 8, np.full(8, scale))
    x = f.pair(f.input(), dtype=dtype)
    return [f.pair(f.op("Conv", x, f.weights(8, 8, 3, 3), bias, name="victim"), dtype=dtype)]


def gemm_bias_scale(f):
    bias = integer_bias(f, 12, np.full(12, 7.0))
    return [f.op("Gemm", f.pair(f.input((1, 16))), f.weights(12, 16), bias, name="victim", transB=1)]


def graph_output_between(f):
    y = victim(f, f.pair(f.input()))
    return [y, f.pair(y)]


def two_quantizers(f):
    y = victim(f, f.pair(f.input()))
    return [f.pair(y), f.pair(y, 0.1)]


def swish(f):
    y = victim(f, f.pair(f.input()))
    return [f.pair(f.op("Mul", y, f.op("Sigmoid", y)), zero=10)]


def unfolded_batch_norm(f):
    y = victim(f, f.pair(f.input()))
    ones = [f.constant(np.ones(8, np.float32)) for _ in range(4)]
    return [f.pair(f.op("BatchNormalization", y, *ones), zero=128)]


def leaky_relu(f):
    return [f.pair(f.op("LeakyRelu", victim(f, f.pair(f.input()))), zero=100)]


def relu_int8(f):
    return [f.pair(f.op("Relu", victim(f, f.pair(f.input(), dtype=INT8))), dtype=INT8)]


def relu_affine(f):
    return [f.pair(f.op("Relu", victim(f, f.pair(f.input()))), zero=5)]


def clip_inside_range(f):
    bounds = [f.constant(np.float32(bound)) for bound in (0, 6)]
    return [f.pair(f.op("Clip", victim(f, f.pair(f.input())), *bounds), scale=0.5)]


def add_relu_affine(f):
    x, z = f.pair(f.input()), f.pair(f.input(name="z"))
    return [f.pair(f.op("Relu", f.op("Add", x, z, name="victim")), zero=5)]


def matmul_bias_relu(f):
    y = f.op("MatMul", f.pair(f.input((1, 5, 16))), f.weights(16, 12, axis=1), name="victim")
    return [f.pair(f.op("Relu", f.op("Add", y, f.floats(12))))]


def tensorrt_style(f):
    return [f.op("Relu", victim(f, f.pair(f.input())))]


def matmul_bias_unquantized(f):
    y = f.op("MatMul", f.pair(f.input((1, 5, 16))), f.weights(16, 12, axis=1), name="victim")
    return [f.op("Add", y, f.floats(12))]


def gemm_bias_unquantized(f):
    return [dense(f, f.pair(f.input((1, 16))))]


def one_int8_quantizer_two_convs(f):
    x = f.pair(f.input(), dtype=INT8)
    return [f.pair(victim(f, x), dtype=INT8), f.pair(f.conv(x), dtype=INT8)]


def int8_output_two_convs(f):
    y = f.pair(victim(f, f.pair(f.input(), dtype=INT8)), dtype=INT8)
    return [f.pair(f.conv(y), dtype=INT8), f.pair(f.conv(y), dtype=INT8)]


def one_sided_add(f):
    x = f.pair(f.input())
    y = f.pair(f.conv(x), zero=128)
    return [f.pair(f.op("Add", y, f.op("Sin", y), name="victim"), zero=128)]


def add_constant(f):
    return [f.pair(f.op("Add", f.pair(f.input()), f.floats(8, 1, 1), name="victim"), zero=128)]


def pooling_unquantized(f, dtype=UINT8):
    return [f.op("GlobalAveragePool", f.pair(f.input(), dtype=dtype), name="victim")]


def average(f, counted, output=True, size=2, stride=2):
    """An average without padding in int8, with a quantized output or without."""
    attributes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "count_include_pad": counted}
    y = f.op("AveragePool", f.pair(f.input(), dtype=INT8), name="victim", **attributes)
    return [f.conv(f.pair(y, dtype=INT8))] if output else [y]


def average_unquantized(f):
    return average(f, counted=1, output=False)


def average_without_padding(f):
    return average(f, counted=0)


def quantized(op_type, **attributes):
    """A builder: this operator with quantized input and output."""

    def build(f):
        return [f.pair(f.op(op_type, f.pair(f.input(), zero=128), name="victim", **attributes), zero=128)]

    build.__name__ = f"quantized_{op_type}"
    return build


def int8_activations(f):
    return [f.pair(f.conv(f.pair(f.input(), dtype=INT8)), dtype=INT8)]


def uint8_weights(f, zero=120):
    x = f.pair(f.input())
    return [f.pair(f.op("Conv", x, f.weights(8, 8, 3, 3, dtype=UINT8, zero=zero), name="victim"))]


def qlinear_conv(f, scales=None):
    q, scale, zero = f.quantize(f.input())
    weights = f.constant(np.ones((8, 8, 3, 3), INT8))
    shape = () if scales is None else (scales,)
    constants = (f.constant(np.full(shape, 0.02, np.float32)), f.constant(np.zeros(shape, INT8)))
    y = f.op("QLinearConv", q, scale, zero, weights, *constants, scale, zero, name="victim")
    return [f.op("DequantizeLinear", y, scale, zero)]


def without_zero_point(f):
    scale = f.constant(np.float32(0.05))
    x = f.op("DequantizeLinear", f.op("QuantizeLinear", f.input(), scale, name="victim"), scale)
    return [f.conv(x)]


def uint8_pair(f):
    f.names.add("q")
    q, scale, zero = f.quantize(f.input())
    f.nodes[-1].name = "victim"
    return [f.conv(f.op("DequantizeLinear", q, scale, zero))]


def int8_with_zero_point(f):
    q, scale, zero = f.quantize(f.input(), dtype=INT8, zero=3)
    f.nodes[-1].name = "victim"
    return [f.conv(f.op("DequantizeLinear", q, scale, zero))]


def int4_blocks_of_32(f):
    x, w = f.pair(f.input((1, 64)), dtype=INT8), int4_blocks(f, 64, 32, "victim")
    return [f.op("MatMul", x, w)]


def one_int4_block(f):
    return [f.op("MatMul", f.input((1, 128)), int4_blocks(f, 128, 128, "victim"))]


def float_input_of_blocks(f):
    return [f.op("MatMul", f.input((1, 64)), int4_blocks(f, 64, 32), name="victim")]


def int4_blocks(f, rows, size, name=None):
    """A weight (rows, 16) of INT4 with a scale for each block of rows and channel."""
    f.opset = 21
    integers = helper.make_tensor("w", TensorProto.INT4, [rows, 16], np.ones(rows * 16, np.int8))
    scales = f.constant(np.full((rows // size, 16), 0.1, np.float32))
    return f.op("DequantizeLinear", f.constant(integers), scales, name=name, axis=0, block_size=size)


def quantizer_before_relu(f):
    return [f.op("Relu", f.pair(victim(f, f.pair(f.input(), dtype=INT8)), dtype=INT8))]


def quantizer_before_batch_norm(f):
    y = f.pair(victim(f, f.pair(f.input(), dtype=INT8)), dtype=INT8)
    return [f.op("BatchNormalization", y, *(f.constant(np.ones(8, np.float32)) for _ in range(4)))]


def residual(f, conv_branch, other_branch, name="victim"):
    """Conv + input, each with a pair before the Add or without."""
    x = f.input()
    y = f.conv(f.pair(x, dtype=INT8))
    y = f.pair(y, dtype=INT8) if conv_branch else y
    z = f.pair(x, 0.06, dtype=INT8) if other_branch else x
    return [f.op("Relu", f.op("Add", y, z, name=name))]


def residual_conv_branch(f):
    return residual(f, True, True)


def residual_float(f):
    return residual(f, False, False)


def unequal_concat(f):
    x, z = f.pair(f.input(), dtype=INT8), f.pair(f.input(name="z"), 0.1, dtype=INT8)
    y = f.op("Concat", x, z, axis=1, name="victim")
    return [f.conv(f.pair(y, dtype=INT8), channels=16)]


def shared_dequantizer(f):
    x = f.op("DequantizeLinear", *f.quantize(f.input(), dtype=INT8), name="victim")
    return [f.conv(x), f.conv(x)]
