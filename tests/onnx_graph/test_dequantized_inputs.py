"""Each operator is found exactly where OpenVINO itself computes it wrong, and the passes make it right."""

import platform

import numpy as np
import pytest
from qdq_steps import assert_found_and_mended, assert_right_and_not_found, numbers, op, reduce, shaped

from tensorflow_quantization.export.onnx.passes.openvino.dequantizer_barriers import dequantizer_barriers
from tensorflow_quantization.export.onnx.passes.openvino.quantizer_barriers import quantizer_barriers
from tensorflow_quantization.onnx_graph.dequantized_inputs import dequantized_inputs

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

SEQUENCES, IMAGES = ("n", 7, 8), ("n", 6, 7, 8)


def dequantized(f, x):
    return f.pair(x, 0.02, 128)


def symmetric(f, x):
    return f.pair(x, 0.02, 0, np.int8)


def times(*shape):
    return lambda f, x: f.op("Mul", x, f.constant(numbers(*shape)))


def also_read(f, x):
    f.outputs.append(f.op("Identity", x))
    return x


def turned(f, x):
    return f.op("Transpose", x, perm=[0, 2, 1])


def pad(axis):
    """A zero before and after an axis of a sequence."""
    return lambda f, x: f.op("Pad", x, f.ints(*(int(a == axis) for a in (*range(3), *range(3)))))


def quantized_twice(f, x):
    """A tensor that moves between two quantizers with the same parameters."""
    q, scale, zero = f.quantize(x, 0.02, 128)
    x = turned(f, f.op("DequantizeLinear", q, scale, zero))
    return f.op("DequantizeLinear", f.op("QuantizeLinear", x, scale, zero), scale, zero)


mean, total = reduce("ReduceMean", 1, keepdims=0), reduce("ReduceSum", 1, keepdims=0)
of_image = reduce("ReduceMean", 1, 2, keepdims=0)
WRONG = {
    "mean": (SEQUENCES, dequantized, mean),
    "symmetric": (SEQUENCES, symmetric, mean),
    "sum": (SEQUENCES, symmetric, total),
    "keepdims": (SEQUENCES, symmetric, reduce("ReduceMean", 1)),
    "relu": (SEQUENCES, symmetric, op("Relu"), mean),
    "slice": (SEQUENCES, dequantized, lambda f, x: f.op("Slice", x, f.ints(1), f.ints(5), f.ints(1)), mean),
    "factor": (SEQUENCES, dequantized, times(), mean),
    "steps-first": ((7, "n", 8), dequantized, reduce("ReduceMean", 2)),
    "merged": (IMAGES, dequantized, shaped("Reshape", 0, -1, 8), mean),
    "activation": (SEQUENCES, dequantized, mean, op("Sigmoid")),
    "also-read": (SEQUENCES, dequantized, mean, also_read, dequantized),
    "factors-quantized": (SEQUENCES, dequantized, times(8), mean, dequantized),
    "image-factors-quantized": (IMAGES, dequantized, times(8), of_image, dequantized),
    "pad": (SEQUENCES, dequantized, pad(1), lambda f, x: f.pair(x, 0.03, 128)),
    "pad-twice-quantized": (SEQUENCES, quantized_twice, pad(2), turned),
    "minimum-factor": (IMAGES, symmetric, reduce("ReduceMin", 1), times(), dequantized),
    "minimum-slope": (IMAGES, symmetric, reduce("ReduceMin", 1), op("PRelu", (1,)), dequantized),
    "minimum": (IMAGES, symmetric, reduce("ReduceMin", 1), dequantized),
}
RIGHT = {
    "quantized": (SEQUENCES, dequantized, mean, dequantized),
    "same": (IMAGES, symmetric, reduce("ReduceMin", 1), symmetric),
    "pad-symmetric": (SEQUENCES, symmetric, pad(1), dequantized),
    "pad-float": (SEQUENCES, dequantized, pad(1), op("Sigmoid")),
    "pad-last": (SEQUENCES, dequantized, pad(2), lambda f, x: f.pair(x, 0.03, 128)),
    "channels": (SEQUENCES, dequantized, reduce("ReduceMean", 2)),
    "image": (IMAGES, dequantized, of_image),
    "activation": (SEQUENCES, dequantized, op("Sigmoid"), mean),
    "float": (SEQUENCES, mean, dequantized),
}


def barriers(builder):
    """The pass, and the one for the maximum or minimum of floats that it leaves."""
    changed = dequantizer_barriers(builder)
    quantizer_barriers(builder)
    return changed


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong_and_mended(case, tmp_path):
    shape, *steps = case
    assert_found_and_mended(dequantized_inputs, barriers, shape, steps, tmp_path, off=0.1, right=0.02)


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(case, tmp_path):
    shape, *steps = case
    assert_right_and_not_found(dequantized_inputs, shape, steps, tmp_path, right=0.02)
