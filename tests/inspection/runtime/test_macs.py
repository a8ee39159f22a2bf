"""Multiply-accumulates, against counting by hand."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from qdq_files import QdqFile

from tensorflow_quantization.inspection.runtime.macs import macs, with_input_shapes


def count(tmp_path, build, **kwargs):
    """The sum over the nodes of a file."""
    file = QdqFile()
    path = file.save(tmp_path / "m.onnx", *build(file))
    model = ir.from_proto(with_input_shapes(onnx.load(path), **kwargs))
    return sum(macs(node) or 0 for node in model.graph)


def op(op_type, x, *weights, **attributes):
    return lambda f: [f.op(op_type, f.input(x), *(f.floats(*shape) for shape in weights), **attributes)]


CASES = [
    # steps * samples * (inputs + states) * gates, in each direction
    ("lstm", op("LSTM", (5, 2, 3), (1, 16, 3), (1, 16, 4), hidden_size=4), 5 * 2 * (3 + 4) * 16),
    (
        "gru",
        op("GRU", (5, 2, 3), (2, 12, 3), (2, 12, 4), hidden_size=4, direction="bidirectional"),
        2 * 5 * 2 * (3 + 4) * 12,
    ),
    # outputs * what each sums
    ("conv", op("Conv", (1, 8, 10, 10), (16, 8, 3, 3)), 16 * 8 * 8 * (8 * 9)),
    ("conv with strides", op("Conv", (1, 8, 10, 10), (16, 8, 3, 3), strides=[2, 2]), 16 * 4 * 4 * (8 * 9)),
    ("depthwise", op("Conv", (1, 8, 10, 10), (8, 1, 3, 3), group=8), 8 * 8 * 8 * 9),
    ("conv of a batch", op("Conv", (3, 8, 10), (16, 8, 5)), 3 * 16 * 6 * (8 * 5)),
    # each input value meets all of its filters
    ("transposed", op("ConvTranspose", (1, 8, 5, 5), (8, 16, 3, 3), strides=[2, 2]), 8 * 5 * 5 * (16 * 9)),
    ("transposed in groups", op("ConvTranspose", (1, 8, 5, 5), (8, 4, 3, 3), group=2), 8 * 5 * 5 * (4 * 9)),
    ("gemm", op("Gemm", (2, 16), (16, 12)), 2 * 12 * 16),
    ("gemm transposed", op("Gemm", (16, 2), (12, 16), transA=1, transB=1), 2 * 12 * 16),
    ("matmul", op("MatMul", (1, 5, 16), (16, 12)), 5 * 12 * 16),
    ("matmul of batches", op("MatMul", (1, 4, 5, 16), (1, 4, 16, 7)), 4 * 5 * 7 * 16),
    # samples * heads * queries * keys * features
    (
        "einsum",
        lambda f: [f.op("Einsum", f.input((2, 4, 5, 16)), f.floats(2, 4, 7, 16), equation="bhqd,bhkd->bhqk")],
        2 * 4 * 5 * 7 * 16,
    ),
    ("nothing", op("Relu", (1, 5)), 0),
]


@pytest.mark.parametrize(("build", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_counts(build, expected, tmp_path):
    assert count(tmp_path, build) == expected


def test_quantized_conv_counts_like_a_float_one(tmp_path):
    assert count(tmp_path, lambda f: [f.conv(f.pair(f.input()))]) == 8 * 8 * 8 * (8 * 9)


def masked(f):
    """Sequences that are sorted by their mask before an LSTM, by as many indices as a computed size says."""
    x, key = f.input((5, 2, 3)), f.input((5, 2), "key")
    steps = f.op("Slice", f.op("Shape", key), f.ints(0), f.ints(1))
    _, indices = f.op("TopK", key, steps, outputs=2, axis=0)
    indices = f.op("Expand", f.op("Unsqueeze", indices, f.ints(2)), f.ints(1, 1, 3))
    x = f.op("GatherElements", x, indices, axis=0)
    return [f.op("LSTM", x, f.floats(1, 16, 3), f.floats(1, 16, 4), hidden_size=4)]


def test_recurrent_layers_with_a_mask_count_all_steps(tmp_path):
    assert count(tmp_path, masked) == 5 * 2 * (3 + 4) * 16


def test_dynamic_batch_is_one(tmp_path):
    assert count(tmp_path, op("MatMul", ("batch", 5, 16), (16, 12))) == 5 * 12 * 16


def test_input_shapes_fix_dynamic_dimensions_also_behind_a_reshape_by_shape(tmp_path):
    def build(f):
        x = f.input(("batch", "length", 16))
        shape = f.op("Concat", f.op("Slice", f.op("Shape", x), f.ints(0), f.ints(2)), f.ints(4, 4), axis=0)
        return [f.op("MatMul", f.op("Reshape", x, shape), f.floats(4, 12))]

    assert count(tmp_path, build, input_shapes={"x": (2, 7, 16)}) == 2 * 7 * 4 * 12 * 4
    assert count(tmp_path, build, input_shapes=(2, 7, 16)) == 2 * 7 * 4 * 12 * 4


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        (("batch", "length", 16), None, r"'x' has the shape \['batch', 'length', 16\]: pass input_shapes=\{'x'"),
        ((None, None, 16), None, r"\['\?', '\?', 16\]: pass"),
        ((1, 5, 16), {"x": (1, 5, 8)}, r"has the shape \[1, 5, 16\]; \(1, 5, 8\) does not fit"),
        ((1, 5, 16), {"x": (5, 16)}, "does not fit"),
        ((1, 5, 16), {"X": (1, 5, 16)}, r"no input 'X'; the inputs are \['x'\]\. Did you mean|no input 'X'"),
    ],
)
def test_shapes_that_are_missing_or_do_not_fit_are_named(shape, given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        count(tmp_path, op("MatMul", shape, (16, 12)), input_shapes=given)


def test_one_shape_for_two_inputs_is_an_error(tmp_path):
    def build(f):
        return [f.op("Add", f.input(name="a"), f.input(name="b"))]

    with pytest.raises(ValueError, match=r"has 2 inputs; pass input_shapes as a dict"):
        count(tmp_path, build, input_shapes=(1, 8, 8, 8))


@pytest.mark.parametrize("shape", [(1.5, 8), (None, 8), (-1, 8), (0, 8), (True, 8), "18", 5])
def test_a_shape_is_a_sequence_of_positive_integers(shape, tmp_path):
    with pytest.raises(ValueError, match=r"input 'x' must be a sequence of positive integers, such as .* got"):
        count(tmp_path, op("Gemm", ("n", 8), (8, 4)), input_shapes=shape)


def test_a_shape_may_be_an_array(tmp_path):
    assert count(tmp_path, op("Gemm", ("n", 8), (8, 4)), input_shapes=np.array([2, 8])) == 2 * 4 * 8
