"""Each reduction is found exactly where OpenVINO itself computes it wrong, and the pass makes it right."""

import platform

import numpy as np
import pytest
from qdq_steps import assert_found_and_mended, assert_right_and_not_found, numbers, op, reduce, shaped

from tensorflow_quantization.export.onnx.passes.openvino.quantizer_barriers import quantizer_barriers
from tensorflow_quantization.onnx_graph.quantized_reductions import quantized_reductions

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

IMAGES = ("n", 6, 6, 4)


def quantize(f, x, zero=100, dtype=np.uint8):
    return f.pair(x, 0.05, zero, dtype)


def signed(f, x):
    return quantize(f, x, 0, np.int8)


def product(f, x, moved=lambda f, x: x):
    """Integers, moved, times integers; weights so small that sums do not saturate on a processor without VNNI."""
    weights = f.rng.integers(-60, 60, (4, 4)).astype("int8")
    constants = weights, (numbers(4) / 100).astype("float32"), np.zeros(4, "int8")
    weights = f.op("DequantizeLinear", *map(f.constant, constants), axis=1)
    return f.op("MatMul", moved(f, f.pair(x, 0.03, 128)), weights)


def of_moved(moved):
    return lambda f, x: product(f, x, moved)


def silu(f, x):
    return f.op("Mul", x, f.op("Sigmoid", x))


def gelu(f, x):
    half, root, one = (f.constant(np.float32(number)) for number in (0.5, np.sqrt(2), 1))
    return f.op("Mul", x, f.op("Mul", half, f.op("Add", f.op("Erf", f.op("Div", x, root)), one)))


def dense(f, x):
    """A quantized product with rows of 6, the other axis of the image."""
    weights = f.constant(np.linspace(-50, 50, 36).reshape(6, 6).astype("int8"))
    weights = f.op("DequantizeLinear", weights, f.constant(np.float32(0.01)), f.constant(np.int8(0)))
    return f.op("MatMul", f.op("Squeeze", x, f.ints(3)), weights)


def also_read(f, x):
    f.outputs.append(f.op("Identity", x))
    return x


mean, maximum = reduce("ReduceMean", 1, 2, keepdims=0), reduce("ReduceMax", 3)
factors = op("Mul", (4,))
WRONG = {
    # Constants along axis 1 of the result, which was another axis before the reduction.
    "factors": (mean, factors, quantize),
    "shifts": (mean, op("Add", (4,)), quantize),
    "quantized-factors": (mean, signed, factors),
    "factors-relu": (mean, factors, op("Relu"), quantize),
    "sigmoid-factors": (mean, op("Sigmoid"), factors, quantize),
    "rows": (reduce("ReduceMean", 1, keepdims=0), op("Mul", (6, 1)), quantize),
    "norm": (reduce("ReduceL2", 1, 2, keepdims=0), op("Sigmoid"), factors, quantize),
    # A maximum of floats and a quantizer.
    "max": (maximum, quantize),
    "max-rank-2": (reduce("ReduceMax", 2, 3, keepdims=0), quantize),
    "max-of-a-row": (shaped("Reshape", -1, 6), reduce("ReduceMax", 1), quantize),
    "max-of-sequences": (shaped("Reshape", 0, 36, 4), reduce("ReduceMax", 1), quantize),
    "min": (reduce("ReduceMin", 3), quantize),
    "global-max-pool": (op("GlobalMaxPool"), quantize),
    "max-of-activations": (op("Sigmoid"), maximum, quantize),
    **{
        f"max-{kind}": (maximum, op(kind), quantize)
        for kind in ("Abs", "Elu", "Neg", "Relu", "Sigmoid", "Softplus", "Tanh")
    },
    "max-silu": (maximum, silu, quantize),
    "max-gelu": (maximum, gelu, quantize),
    "max-transpose": (maximum, lambda f, x: f.op("Transpose", x, perm=[0, 2, 1, 3]), quantize, dense),
    "max-signed": (maximum, signed, dense),
    "max-zero-point-0": (maximum, lambda f, x: quantize(f, x, 0), dense),
    "max-of-scales": (lambda f, x: f.op("Concat", f.pair(x, 0.02), f.pair(x, 0.03), axis=3), maximum, quantize),
    "max-mul": (maximum, op("Mul", (6, 1, 1)), quantize),
    "max-same-shape": (maximum, shaped("Reshape", 0, 6, 6, 1), quantize),
    "max-of-product": (product, maximum, quantize),
    # A reduction of a product of integers to rank 2, and any quantizer.
    "mean": (product, mean, quantize),
    "mean-signed": (product, mean, signed),
    "mean-of-sequences": (shaped("Reshape", 0, 36, 4), product, reduce("ReduceMean", 1, keepdims=0), quantize),
    "mean-over-the-batch": (product, reduce("ReduceMean", 0, 1, keepdims=0), quantize),
    "sum": (product, op("Mul", ()), reduce("ReduceSum", 1, 2, keepdims=0), op("Mul", ()), quantize),
    "mean-mul": (product, mean, op("Mul", (4,)), quantize),
    "mean-add-mul": (product, mean, op("Add", (4,)), op("Mul", ()), quantize),
    "mean-same-shape": (product, mean, shaped("Reshape", -1, 4), quantize),
    "mean-of-max": (product, reduce("ReduceMax", 1, keepdims=0), reduce("ReduceMean", 1, keepdims=0), quantize),
    "mul-mean": (product, op("Mul", (4,)), mean, quantize),
    "mul-add-mean": (product, op("Mul", ()), op("Add", (4,)), mean, quantize),
    "mean-of-moved": (of_moved(shaped("Reshape", 0, 36, 4)), reduce("ReduceMean", 1, keepdims=0), quantize),
    "mean-of-turned": (of_moved(lambda f, x: f.op("Transpose", x, perm=[0, 2, 1, 3])), mean, quantize),
    "mean-of-parts": (of_moved(lambda f, x: f.op("Slice", x, f.ints(1), f.ints(5), f.ints(1))), mean, quantize),
    "transposed": (product, lambda f, x: f.op("Transpose", x, perm=[0, 2, 1, 3]), mean, quantize),
}
RIGHT = {
    "slopes": (mean, op("PRelu", (4,)), quantize),
    "quantized-factors": (mean, quantize, factors),
    "factors-alone": (mean, factors),
    "factors-of-axis-1": (reduce("ReduceMean", 2, 3, keepdims=0), op("Mul", (6,)), quantize),
    "factors-of-kept-axes": (reduce("ReduceMean", 1, 2), factors, quantize),
    "columns": (reduce("ReduceMean", 1, keepdims=0), factors, quantize),
    "softmax": (mean, factors, lambda f, x: f.op("Softmax", x, axis=-1), quantize),
    "max-of-integers": (quantize, maximum, quantize),
    "max-read-twice": (maximum, also_read, quantize),
    "max-pool": (maximum, lambda f, x: f.op("MaxPool", x, kernel_shape=[1, 1]), quantize),
    "max-squeeze": (maximum, shaped("Squeeze", 3), quantize),
    **{f"max-{kind}": (maximum, op(kind), quantize, dense) for kind in ("Exp", "HardSigmoid", "Sign")},
    "max-float": (maximum,),
    "mean-float": (mean, quantize),
    "mean-of-integers": (quantize, mean, quantize),
    "mean-keeps-axes": (product, reduce("ReduceMean", 1, 2), quantize),
    "mean-rank-3": (product, reduce("ReduceMean", 1, keepdims=0), quantize),
    "mean-squeeze": (product, reduce("ReduceMean", 1, 2), shaped("Squeeze", 1, 2), quantize),
    "mean-relu": (product, mean, op("Relu"), quantize),
    "mean-read-twice": (product, mean, also_read, quantize),
    "mean-unsqueeze": (product, mean, shaped("Unsqueeze", 1), quantize),
    "bias": (product, op("Add", (4,)), mean, quantize),
    "relu-mean": (product, op("Relu"), mean, quantize),
}


X = np.random.default_rng(0).uniform(-3, 3, (3, *IMAGES[1:])).astype("float32")


@pytest.mark.parametrize("steps", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong_and_mended(steps, tmp_path):
    assert_found_and_mended(
        quantized_reductions, quantizer_barriers, IMAGES, steps, tmp_path, off=0.05, right=0.03, x=X
    )


@pytest.mark.parametrize("steps", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(steps, tmp_path):
    assert_right_and_not_found(quantized_reductions, IMAGES, steps, tmp_path, right=0.03, x=X)
