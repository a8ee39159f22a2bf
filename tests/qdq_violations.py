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


def counted_padding(zero=0, before="", dtype=np.uint8):
    """A builder: an average over padding, of its own or of the operators `before` it: "Pad", "Pad, Q, DQ"."""

    def build(f):
        x, pads = f.pair(f.input(), zero=zero, dtype=dtype), [0, 0, 1, 1]
        if before:
            x = f.op("Pad", x, f.ints(0, 0, *pads[:2], 0, 0, *pads[2:]))
        if before == "Pad, Q, DQ":
            x = f.pair(x, zero=zero, dtype=dtype)
        attributes = {} if before else {"pads": pads, "count_include_pad": 1}
        y = f.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], name="victim", **attributes)
        return [f.pair(y, zero=zero, dtype=dtype)]

    return build


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


def int8_weights_with_zero_point(f):
    return [f.pair(f.op("Conv", f.pair(f.input()), f.weights(8, 8, 3, 3, zero=5), name="victim"))]


def product(left, right):
    """A builder: MatMul of two activations, each given as (dtype, zero point)."""

    def build(f):
        a = f.pair(f.input((1, 4, 5, 16), "a"), dtype=left[0], zero=left[1])
        b = f.pair(f.input((1, 4, 16, 5), "b"), dtype=right[0], zero=right[1])
        return [f.op("MatMul", a, b, name="victim")]

    build.__name__ = f"product_{left[0].__name__}_{left[1]}_{right[0].__name__}_{right[1]}"
    return build


def qlinear_conv(f, scales=None):
    q, scale, zero = f.quantize(f.input())
    weights = f.constant(np.ones((8, 8, 3, 3), INT8))
    shape = () if scales is None else (scales,)
    constants = (f.constant(np.full(shape, 0.02, np.float32)), f.constant(np.zeros(shape, INT8)))
    y = f.op("QLinearConv", q, scale, zero, weights, *constants, scale, zero, name="victim")
    return [f.op("DequantizeLinear", y, scale, zero)]


def matmul_integer(f):
    q, scale, zero = f.op("DynamicQuantizeLinear", f.input((1, 5, 16)), outputs=3)
    y = f.op("MatMulInteger", q, f.constant(np.ones((16, 12), INT8)), zero, name="victim")
    return [f.op("Mul", f.op("Cast", y, to=TensorProto.FLOAT), scale)]


def two_strided_pointwise(f):
    x = f.pair(f.input())
    strided = {"kernel": 1, "strides": [2, 2]}
    return [f.pair(victim(f, x, **strided), zero=128), f.pair(f.conv(x, **strided), zero=128)]


def recurrent(op_type="GRU", batch=None, lengths=True, read=(0,), **attributes):
    """A recurrent operator over 5 steps, whose outputs `read` are the outputs of the graph."""

    def build(f):
        gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[op_type]
        x, states = f.input((5, batch, 4)), 3 if op_type == "LSTM" else 2
        weights = (f.floats(1, gates * 8, 4), f.floats(1, gates * 8, 8), f.floats(1, gates * 16))
        more = (f.input((batch,), "lengths", TensorProto.INT32),) if lengths else ()
        made = f.op(op_type, x, *weights, *more, name="victim", outputs=states, hidden_size=8, **attributes)
        return [made[i] for i in read]

    return build


def pooled(activation, moved=False, affine=False, barrier=False, before=None):
    """An activation of the maximum of what a Conv computes in float."""

    def build(f):
        x = f.op("Conv", f.input(), f.floats(8, 8, 3, 3), pads=[1, 1, 1, 1])
        if affine:
            x = f.op("Add", f.op("Mul", x, f.floats(1, 8, 1, 1)), f.floats(1, 8, 1, 1))
        if before:
            x = f.op(before, x)
        x = f.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        if barrier:
            x = f.op("MaxPool", x, kernel_shape=[1, 1])
        if moved:
            x = f.op("Transpose", x, perm=[0, 2, 3, 1])
        if activation == "silu":
            return [f.op("Mul", x, f.op("Sigmoid", x))]
        if activation == "mish":
            return [f.op("Mul", x, f.op("Tanh", f.op("Softplus", x)))]
        if activation == "gelu":
            error = f.op("Erf", f.op("Div", x, f.constant(np.float32(2**0.5))))
            return [
                f.op("Mul", f.op("Mul", x, f.op("Add", error, f.constant(np.float32(1)))), f.constant(np.float32(0.5)))
            ]
        return [f.op(activation, x)]

    return build


def reduced(barrier=False, rank=3):
    """Factors of channels after the mean of sequences, or of images."""

    def build(f):
        ones = [1] * (rank - 2)
        x = f.op("GlobalAveragePool", f.input((2, 8, *[5] * (rank - 2))))
        if barrier:
            x = f.op("MaxPool", x, kernel_shape=ones)
        return [f.op("Mul", x, f.floats(1, 8, *ones))]

    return build


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


def shared(reader="Relu", bias=None, barrier=False, private=False, batch=None):
    """A quantized convolution, without a bias or with one, that is an output of the graph and has a reader."""

    def build(f):
        biases = () if bias is None else (f.constant(np.full(8, bias, np.float32)),)
        x = f.pair(f.input((batch, 8, 8, 8)))
        x = f.op("Conv", x, f.weights(8, 8, 3, 3), *biases, name="victim", pads=[1, 1, 1, 1])
        if barrier:
            x = f.op("MaxPool", x, kernel_shape=[1, 1])
        more = (f.floats(1, 8, 1, 1),) if reader in ("Add", "Mul") else ()
        y = f.op(reader, x, *more)
        return [y] if private else [y, x]

    return build
