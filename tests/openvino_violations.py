"""Graphs that break the rules of OpenVINO alone; the others are in `qdq_violations`."""

import numpy as np
from onnx import TensorProto
from qdq_violations import victim


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


def matmul_integer(f):
    q, scale, zero = f.op("DynamicQuantizeLinear", f.input((1, 5, 16)), outputs=3)
    y = f.op("MatMulInteger", q, f.constant(np.ones((16, 12), np.int8)), zero, name="victim")
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


def quantized_maximum(f):
    return [f.pair(f.op("ReduceMax", f.input(), axes=[2, 3], name="victim"), zero=100)]


def scaled_normalization(f):
    x = f.op("Mul", f.input(), f.constant(np.float32(0.1)))
    x = f.op("LayerNormalization", x, f.floats(8), name="victim")
    return [f.conv(f.pair(x, zero=128))]


def shared(reader="Relu", bias=None, barrier=False, private=False, batch=None, op_type="Conv"):
    """A quantized convolution, without a bias or with one, that is an output of the graph and has a reader."""

    def build(f):
        biases = () if bias is None else (f.constant(np.full(8, bias, np.float32)),)
        x = f.pair(f.input((batch, 8, 8, 8)))
        weights = f.weights(8, 8, 3, 3, axis=0 if op_type == "Conv" else 1)
        x = f.op(op_type, x, weights, *biases, name="victim", pads=[1, 1, 1, 1])
        if barrier:
            x = f.op("Max", x, f.constant(np.finfo(np.float32).min))
        more = (f.floats(1, 8, 1, 1),) if reader in ("Add", "Mul") else ()
        y = f.op(reader, x, *more)
        return [y] if private else [y, x]

    return build


def misplaced_constant(f):
    """Factors of the steps of a sequence after a product of integers."""
    x = f.op("MatMul", f.pair(f.input((None, 6, 8))), f.weights(8, 7, axis=1))
    return [f.op("Mul", x, f.floats(6, 1), name="victim")]


def dequantized_mean(f):
    """The mean of the steps of a dequantized sequence."""
    return [f.op("ReduceMean", f.pair(f.input((None, 6, 8))), axes=[1], name="victim")]


def rounded_result(f):
    """A Clip of a dequantized tensor at what is no multiple of its scale."""
    limits = (f.constant(np.float32(limit)) for limit in (0, 0.97))
    return [f.op("Clip", f.pair(f.input((None, 6, 8))), *limits, name="victim")]


def negated(activation="Relu", negating="Neg", op_type="Conv", between=(), barrier=False, quantized=True, bias=None):
    """A convolution of integers or in float, its activation, operators `between`, and a negative factor."""

    def build(f):
        x = f.pair(f.input()) if quantized else f.input()
        weights = f.weights(8, 8, 3, 3, axis=0 if op_type == "Conv" else 1) if quantized else f.floats(8, 8, 3, 3)
        biases = () if bias is None else (f.constant(np.full(8, bias, np.float32)),)
        x = f.op(op_type, x, weights, *biases, pads=[1, 1, 1, 1])
        x = f.op(activation, x, *([f.constant(np.full((8, 1, 1), 0.3, np.float32))] * (activation == "PRelu")))
        if barrier:
            x = f.op("Max", x, f.constant(np.finfo(np.float32).min))
        for name in between:
            attributes = {"Transpose": {"perm": [0, 2, 3, 1]}, "AveragePool": {"kernel_shape": [2, 2]}}.get(name, {})
            x = f.op(name, x, *([f.constant(np.float32(0.3))] * (name in ("Add", "Mul"))), **attributes)
        if negating == "Sub":
            return [f.op("Sub", f.input((None, 8, 8, 8), "other"), x, name="victim")]
        if negating == "shifted":
            return [f.op("Add", f.op("Neg", x, name="victim"), f.constant(np.float32(0.5)))]
        factors = f.constant(np.linspace(-1, 1, 8, dtype=np.float32).reshape(8, 1, 1))
        y = f.op(negating, x, *([factors] * (negating != "Neg")), name="victim")
        return [f.pair(y, scale=0.3, zero=128) if between else y]

    return build


def uncovered(kernel=2, after=None, bias=0.5, quantized=True, zero=0):
    """A transposed convolution with strides of 3, an operator `after` it, and a quantizer."""

    def build(f):
        x = f.op(
            "ConvTranspose",
            f.pair(f.input(), zero=zero),
            f.weights(8, 8, kernel, kernel, axis=1),
            f.constant(bias * np.linspace(1, 2, 8, dtype=np.float32)),
            strides=[3, 3],
            output_padding=[1, 1],
            name="victim",
        )
        if after:
            shifts = np.linspace(1, 2, 8, dtype=np.float32).reshape(8, 1, 1)
            more = {"Max": np.finfo(np.float32).min, "Mul": np.float32(0.5), "Add": shifts}
            x = f.op(after, x, *([f.constant(more[after])] if after in more else []))
        return [f.pair(x, scale=0.3, zero=128) if quantized else x]

    return build
