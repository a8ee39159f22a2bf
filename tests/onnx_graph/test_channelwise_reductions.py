"""Each reduction is found exactly where OpenVINO itself computes it wrong."""

import platform

import numpy as np
import onnx
import pytest
from onnx_models import run
from qdq_files import QdqFile
from qdq_steps import numbers, op, pair, reduce, shaped

from tensorflow_quantization.onnx_graph.channelwise_reductions import channelwise_reductions
from tensorflow_quantization.onnx_graph.files import to_ir, with_shapes

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="measured on x86")

SEQUENCES = ("n", 4, 7)


def conv(bias=True, quantized=True, scales=4):
    """Weights so small that sums do not saturate on a processor without VNNI."""

    def step(f, x):
        weights = f.rng.integers(-60, 60, (4, 4, 3))
        if quantized:
            scale, zero, axis = (numbers(4), np.zeros(4), {"axis": 0}) if scales > 1 else (numbers(), np.zeros(()), {})
            constants = [weights.astype("int8"), (scale / 100).astype("float32"), zero.astype("int8")]
            weights = f.op("DequantizeLinear", *map(f.constant, constants), **axis)
        else:
            weights = f.constant((weights / 100).astype("float32"))
        return f.op("Conv", x, weights, *([f.constant(numbers(4))] if bias else []), pads=[1, 1])

    return step


def also_read(f, x):
    """Another output of the graph."""
    f.outputs.append(f.op("Identity", x))
    return x


def concat(*scales, axis=1):
    return lambda f, x: f.op("Concat", *(pair(f, x, scale) for scale in scales), axis=axis)


def matmul(f, x):
    return f.op("MatMul", x, f.constant(numbers(4, 5)))


def plus_input(f, x):
    return f.op("Add", x, "x")


mean, mean_rank_2 = reduce("ReduceMean", 2), reduce("ReduceMean", 2, keepdims=0)
mul, add, relu = op("Mul", (1, 4, 1)), op("Add", (1, 4, 1)), op("Relu")
batch_norm = op("BatchNormalization", (4,), (4,), (4,), (4,))
swap, pool, one = op("Transpose", perm=[0, 2, 1]), op("MaxPool", kernel_shape=[2]), op("Mul", (1, 1, 1))
barrier = op("MaxPool", kernel_shape=[1])
bare = conv(bias=False)

WRONG = {
    # In float: what comes after the reduction.
    "mul": (mean, mul),
    "add": (mean, add),
    "div": (mean, op("Div", (1, 4, 1))),
    "prelu": (mean, op("PRelu", (1, 4, 1))),
    "batch-norm": (mean, batch_norm),
    "short-constant": (mean, op("Mul", (4, 1))),
    "global-average": (op("GlobalAveragePool"), mul),
    "global-max": (op("GlobalMaxPool"), mul),
    **{
        name: (reduce(name, -1), mul) for name in ("ReduceL1", "ReduceL2", "ReduceMin", "ReduceProd", "ReduceSumSquare")
    },
    "over-batch": (reduce("ReduceMean", 0), mul),
    "over-batch-rank-2": (reduce("ReduceMean", 0, keepdims=0), op("Mul", (4, 1))),
    "rank-2": (mean_rank_2, op("Mul", (1, 4))),
    "after-relu": (mean, relu, mul),
    "after-a-scalar": (mean, one, add),
    "transposed-before": (swap, reduce("ReduceMax", 1, keepdims=0), op("Mul", (1, 4))),
    # With quantizers.
    "quantized-mul": (mean, pair, mul),
    "quantized-per-channel": (mean, lambda f, x: pair(f, x, 0.2, axis=1), one),
    # What comes before the reduction, in a file with quantizers.
    "before": (pair, mul, mean),
    "before-sum": (pair, mul, reduce("ReduceSum", 2)),
    "before-max": (pair, mul, reduce("ReduceMax", 2)),
    "before-rank-2": (pair, mul, mean_rank_2, matmul),
    "before-add": (pair, add, mean),
    "before-batch-norm": (pair, batch_norm, mean),
    "before-pool": (pair, add, pool, mean),
    "before-relu": (pair, mul, relu, mean),
    "before-transpose": (pair, mul, swap, reduce("ReduceMean", 1)),
    "before-barrier": (pair, mul, barrier, mean),
    "float-before": (mul, mean, pair),
    "float-before-both": (one, add, mean, pair),
    "float-add-and-factor": (add, one, mean, pair),
    "scales-of-channels": (lambda f, x: pair(f, x, axis=1), mean),
    "scales-of-weights": (pair, bare, mean),
    "scales-of-weights-relu": (pair, bare, relu, mean),
    "scales-of-weights-shared": (pair, bare, also_read, mean),
    "conv-mul": (pair, conv(bias=False, scales=1), mul, mean),
    "conv-relu-mul": (pair, conv(), relu, mul, mean),
    "conv-relu-add": (pair, bare, relu, add, mean),
    "conv-shared-mul": (pair, conv(), also_read, mul, mean),
    "conv-shared-batch-norm": (pair, conv(quantized=False), also_read, batch_norm, mean),
    "concat": (concat(0.02, 0.03), mean),
    "reshape": (pair, mul, shaped("Reshape", -1, 4, 7), mean),
    "before-and-reshaped": (pair, mul, mean, shaped("Reshape", 0, 2, 2)),
}
RIGHT = {
    "reshape-after": (mean, shaped("Reshape", -1, 4), op("Mul", (1, 4))),
    "barrier": (mean, barrier, batch_norm),
    "read-twice": (mean, also_read, mul),
    "scalar": (mean, one),
    "over-channels": (reduce("ReduceMean", 1), op("Mul", (1, 1, 7))),
    "over-both": (reduce("ReduceMean", 0, 2), mul),
    "transposed": (swap, reduce("ReduceMean", 1), op("Mul", (1, 1, 4))),
    "last-axis": (mean, shaped("Squeeze", 2), op("Add", (1, 4))),
    "not-fused": (mean, op("Cos"), mul),
    "float-mul-before": (mul, mean),
    "requantized": (pair, mul, pair, mean),
    "sigmoid": (pair, mul, op("Sigmoid"), mean),
    "clip": (pair, mul, op("Clip", (), ()), mean),
    "other-reduction": (pair, mul, reduce("ReduceL2", 2)),
    "moved-on": (pair, mul, mean, op("Flatten")),
    "float-add": (add, mean, pair),
    "batch-norm-relu": (pair, batch_norm, relu, mean),
    "conv": (pair, conv(), mean),
    "conv-folds": (pair, conv(), batch_norm, mean),
    "conv-folds-a-bias": (pair, bare, add, mean),
    "conv-shared-add": (pair, conv(), also_read, add, mean),
    "float-conv-folds": (pair, conv(quantized=False), mul, mean),
    "one-scale": (pair, conv(bias=False, scales=1), relu, mean),
    "concat-one-scale": (concat(0.02, 0.02), mean),
    "concat-of-steps": (concat(0.02, 0.03, axis=2), mean),
    "residual": (pair, bare, plus_input, relu, mean),
}


def check(tmp_path, steps, shape, batch=3):
    """Whether the reduction is found, and how far OpenVINO is from ONNX Runtime."""
    f = QdqFile(opset=18)
    x = f.input(shape)
    for step in steps:
        x = step(f, x)
    path = f.save(tmp_path / "model.onnx", *f.outputs, f.op("Identity", x))
    found = list(channelwise_reductions(to_ir(with_shapes(onnx.load(path)), path).graph))
    arrays = [
        np.random.default_rng(0).normal(size=[d if isinstance(d, int) else batch for d in shape]).astype("float32")
    ]
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    actual, expected = compiled(arrays)[-1 if not f.outputs else len(f.outputs)], run(path, arrays, optimize=False)[-1]
    return bool(found), np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("steps", WRONG.values(), ids=WRONG)
def test_found_where_openvino_is_wrong(steps, tmp_path):
    found, off = check(tmp_path, steps, SEQUENCES)
    assert found and off > 0.05


@pytest.mark.parametrize("steps", RIGHT.values(), ids=RIGHT)
def test_not_found_where_openvino_is_right(steps, tmp_path):
    found, off = check(tmp_path, steps, SEQUENCES)
    assert not found and off < 1e-4


@pytest.mark.parametrize(
    ("shape", "axes", "constant"),
    [
        ((1, 4, 7), [2], (1, 4, 1)),
        ((3, 4, 1), [0], (1, 4, 1)),
        (("n", 4), [0], (1, 4)),
        (("n", 4, 7, 6), [2, 3], (1, 4, 1, 1)),
        (("n", 4, 7, 6), [2], (1, 4, 1, 1)),
        (("n", 4, 5, 6, 7), [2, 3, 4], (1, 4, 1, 1, 1)),
    ],
)
def test_other_ranks_and_single_sequences_are_right(shape, axes, constant, tmp_path):
    found, off = check(tmp_path, (reduce("ReduceMean", *axes), op("Mul", constant)), shape)
    assert not found and off < 1e-4


def test_negative_factors_do_not_move_past_a_maximum(tmp_path):
    def negative(f, x):
        return f.op("Mul", x, f.constant(-numbers(1, 4, 1)))

    found, off = check(tmp_path, (pair, negative, reduce("ReduceMax", 2)), SEQUENCES)
    assert not found and off < 1e-4
