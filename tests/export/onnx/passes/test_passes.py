"""The passes on tiny graphs, each compared with the graph before it in ONNX Runtime."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.clip_to_max import clip_to_max
from tensorflow_quantization.export.onnx.passes.dead_code import remove_dead_code
from tensorflow_quantization.export.onnx.passes.drop_clips import drop_clips
from tensorflow_quantization.export.onnx.passes.fold_batch_norm import fold_batch_norm
from tensorflow_quantization.export.onnx.passes.fold_input_scaling import fold_input_scaling
from tensorflow_quantization.export.onnx.passes.fold_padding import fold_padding
from tensorflow_quantization.export.onnx.passes.merge_concats import merge_concats
from tensorflow_quantization.export.onnx.passes.merge_reshapes import merge_reshapes
from tensorflow_quantization.export.onnx.passes.nonnegative import find_nonnegative
from tensorflow_quantization.export.onnx.passes.reduction_axes import reduction_axes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("quantized", [None, "per_channel", "per_tensor"])
@pytest.mark.parametrize("kind", ["Conv", "depthwise", "ConvTranspose", "Gemm", "MatMul"])
def test_batch_norm_is_folded(tmp_path, kind, quantized, bias):
    shapes = {
        "Conv": (4, 3, 2, 2),
        "depthwise": (6, 1, 2, 2),
        "ConvTranspose": (3, 4, 2, 2),
        "Gemm": (3, 4),
        "MatMul": (3, 4),
    }
    axis = 0 if kind in ("Conv", "depthwise") else 1
    shape = shapes[kind]
    image = len(shape) == 4
    g = Graph(*((3, 5, 5) if image else (3,)))
    if quantized is None:
        w = g.weight(*shape)
    else:
        w = g.int8_weight(*shape, axis=axis if quantized == "per_channel" else None)
    b = g.weight(shape[axis]) if bias else None
    if kind == "MatMul":
        y = g.op("MatMul", g.x, w)
        y = g.op("Add", y, b) if bias else y
    else:
        y = g.op(kind.replace("depthwise", "Conv"), g.x, w, b, group=3 if kind == "depthwise" else None)
    y = g.op("Relu", g.batch_norm(y, shape[axis]))
    counts = g.check(tmp_path, y, fold_batch_norm)
    assert counts["BatchNormalization"] == 0
    assert counts["DequantizeLinear"] == (quantized is not None)


def test_batch_norm_as_mul_and_add_is_folded_into_a_matrix_product(tmp_path):
    g = Graph(5, 3)
    y = g.op("Add", g.op("MatMul", g.x, g.weight(3, 4)), g.weight(4))
    y = g.op("Add", g.op("Mul", y, g.weight(4)), g.weight(4))
    assert g.check(tmp_path, y, fold_batch_norm) == {"MatMul": 1, "Add": 1}


def test_two_batch_norms_are_both_folded(tmp_path):
    g = Graph(3, 5, 5)
    y = g.batch_norm(g.batch_norm(g.op("Conv", g.x, g.weight(4, 3, 2, 2)), 4), 4)
    assert g.check(tmp_path, y, fold_batch_norm) == {"Conv": 1}


def test_folding_keeps_scales_positive_and_integers_up_to_sign(tmp_path):
    g = Graph(3, 5, 5)
    w = g.int8_weight(4, 3, 2, 2, axis=0)
    integers = w.producer().inputs[0].const_value.numpy()
    y = g.batch_norm(g.op("Conv", g.x, w), 4, gamma=[1.0, -2.0, 0.0, 1e-45])
    g.check(tmp_path, y, fold_batch_norm)
    folded, scale, _ = (v.const_value.numpy() for v in w.producer().inputs)
    assert (scale > 0).all()
    np.testing.assert_array_equal(folded[0], integers[0])
    np.testing.assert_array_equal(folded[1], -integers[1])
    assert not folded[2:].any()


def test_the_lowest_integer_cannot_change_its_sign_so_nothing_is_folded(tmp_path):
    g = Graph(3, 5, 5)
    w = g.int8_weight(2, 3, 2, 2, axis=0)
    w.producer().inputs[0].const_value.numpy()[0, 0, 0, 0] = -128
    counts = g.check(tmp_path, g.batch_norm(g.op("Conv", g.x, w), 2, gamma=[-1.0, 1.0]), fold_batch_norm)
    assert counts["BatchNormalization"] == 1


@pytest.mark.parametrize("also_read", ["by another node", "by the graph"])
def test_batch_norm_stays_where_the_convolution_has_another_reader(tmp_path, also_read):
    g = Graph(3, 5, 5)
    conv = g.op("Conv", g.x, g.weight(3, 3, 1, 1))
    y = g.op("Add", conv, g.batch_norm(conv, 3)) if also_read == "by another node" else g.batch_norm(conv, 3)
    if also_read == "by the graph":
        conv.type = ir.TensorType(ir.DataType.FLOAT)
        g.builder.graph.outputs.append(conv)
    assert g.check(tmp_path, y, fold_batch_norm)["BatchNormalization"] == 1


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_over_another_axis_than_a_product_s_stays(tmp_path, bias):
    g = Graph(4, 6, 5)
    y = g.op("MatMul", g.x, g.weight(5, 4))
    y = g.op("Add", y, g.weight(4)) if bias else y
    y.shape = ir.Shape([None, 4, 6, 4])
    assert g.check(tmp_path, g.batch_norm(y, 4), fold_batch_norm)["BatchNormalization"] == 1


@pytest.mark.parametrize("quantized", [False, True])
def test_factors_and_sums_of_channels_are_folded_like_a_batch_norm(tmp_path, quantized):
    g = Graph(3, 5, 5)
    w = g.int8_weight(4, 3, 2, 2, axis=0) if quantized else g.weight(4, 3, 2, 2)
    y = g.op("Div", g.op("Conv", g.x, w), 4.0)
    y = g.op("Add", g.op("Mul", g.weight(4, 1, 1), y), g.weight(1, 4, 1, 1))
    y = g.op("Sub", 1.0, y)
    assert g.check(tmp_path, g.op("Relu", y), fold_batch_norm) == {
        "Conv": 1,
        "Relu": 1,
        **({"DequantizeLinear": 1} if quantized else {}),
    }


def test_a_factor_alone_is_folded_into_a_matrix_product(tmp_path):
    g = Graph(5, 3)
    y = g.op("Mul", g.op("Add", g.op("MatMul", g.x, g.weight(3, 4)), g.weight(4)), g.weight(4))
    assert g.check(tmp_path, y, fold_batch_norm) == {"MatMul": 1, "Add": 1}
    g = Graph(5, 3)
    y = g.op("Relu", g.op("Mul", g.op("MatMul", g.x, g.weight(3, 4)), 0.5))
    assert g.check(tmp_path, y, fold_batch_norm) == {"MatMul": 1, "Relu": 1}


@pytest.mark.parametrize("shape", [(5, 1), (2, 1, 5, 3), (1, 1, 4)])
def test_factors_along_other_axes_than_that_of_the_channels_stay(tmp_path, shape):
    g = Graph(5, 3)
    y = g.op("Mul", g.op("MatMul", g.x, g.weight(3, 1 if shape[-1] == 4 else 3)), g.weight(*shape))
    assert g.check(tmp_path, g.op("Relu", y), fold_batch_norm)["Mul"] == 1


def test_layers_that_are_called_again_share_their_folded_weight(tmp_path):
    g = Graph(3, 5, 5)
    w = g.builder.shared_initializer("kernel", g.weight(3, 3, 1, 1))
    y = g.op("Mul", g.op("Conv", g.op("Mul", g.op("Conv", g.x, w), 2.0), w), 2.0)
    assert g.check(tmp_path, y, fold_batch_norm) == {"Conv": 2}
    assert len(g.builder.graph.initializers) == 1


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["Conv", "depthwise", "grouped", "Gemm", "MatMul"])
def test_batch_norm_is_folded_into_what_reads_it(tmp_path, kind, bias):
    shapes = {
        "Conv": (5, 4, 2, 2),
        "depthwise": (8, 1, 2, 2),
        "grouped": (6, 2, 2, 2),
        "Gemm": (4, 5),
        "MatMul": (4, 5),
    }
    shape = shapes[kind]
    g = Graph(*((4, 5, 5) if len(shape) == 4 else (4,)))
    b = g.weight(shape[1] if len(shape) == 2 else shape[0]) if bias else None
    x, w = g.batch_norm(g.x, 4), g.weight(*shape)
    if kind == "MatMul":
        y = g.op("MatMul", x, w)
        y = g.op("Add", y, b) if bias else y
    else:
        groups = {"depthwise": 4, "grouped": 2}.get(kind)
        y = g.op("Gemm" if kind == "Gemm" else "Conv", x, w, b, group=groups)
    counts = g.check(tmp_path, [g.op("Relu", y)], fold_input_scaling)
    assert set(counts) == {kind if len(shape) == 2 else "Conv", "Relu", *(["Add"] if kind == "MatMul" else [])}


def scaled_image(g):
    """What Rescaling and Normalization make of an image."""
    return g.op("Div", g.op("Sub", g.op("Mul", g.x, 0.01), g.weight(3, 1, 1)), np.exp(g.weight(3, 1, 1)))


@pytest.mark.parametrize(("pads", "adds"), [(None, 0), ([1, 1, 1, 1], 1)])
def test_scaling_of_an_image_is_folded_but_for_what_it_adds_where_it_is_padded(tmp_path, pads, adds):
    g = Graph(3, 6, 6)
    y = g.op("Conv", scaled_image(g), g.weight(4, 3, 3, 3), pads=pads)
    counts = g.check(tmp_path, y, fold_input_scaling)
    assert counts == {"Conv": 1, **({"Add": 1} if adds else {})}


def test_factors_are_folded_into_a_convolution_that_pads(tmp_path):
    g = Graph(3, 6, 6)
    y = g.op("Conv", g.op("Mul", g.x, g.weight(3, 1, 1)), g.weight(4, 3, 3, 3), pads=[1, 1, 1, 1])
    assert g.check(tmp_path, y, fold_input_scaling) == {"Conv": 1}


def test_batch_norm_stays_before_a_convolution_that_pads(tmp_path):
    g = Graph(3, 6, 6)
    y = g.op("Conv", g.batch_norm(g.x, 3), g.weight(4, 3, 3, 3), auto_pad="SAME_UPPER")
    assert g.check(tmp_path, y, fold_input_scaling) == {"BatchNormalization": 1, "Conv": 1}


def test_a_large_number_is_taken_away_before_products_are_rounded(tmp_path):
    g = Graph(3)
    y = g.op("Gemm", g.op("Mul", g.op("Sub", g.x, 2000.0), 3.0), g.weight(3, 4))
    assert g.check(tmp_path, y, fold_input_scaling) == {"Add": 1, "Gemm": 1}


def test_scaling_is_folded_into_all_that_read_it(tmp_path):
    g = Graph(3, 6, 6)
    x = scaled_image(g)
    outputs = [g.op("Conv", x, g.weight(4, 3, size, size)) for size in (1, 3)]
    assert g.check(tmp_path, outputs, fold_input_scaling) == {"Conv": 2}


@pytest.mark.parametrize(
    "reader",
    [
        lambda g, x: g.op("Add", x, g.op("Conv", x, g.weight(3, 3, 1, 1))),  # something else reads it too
        lambda g, x: g.op("Conv", g.op("Relu", x), g.weight(4, 3, 3, 3)),  # as in DenseNet and ResNetV2
        lambda g, x: g.op("Conv", g.quantized(x), g.weight(4, 3, 3, 3)),
        lambda g, x: g.op("Conv", x, g.int8_weight(4, 3, 3, 3, axis=0)),
        lambda g, x: g.op("ConvTranspose", x, g.weight(3, 4, 3, 3)),  # fewer of the terms at its border
    ],
)
def test_batch_norm_stays_before_what_cannot_take_it_up(tmp_path, reader):
    g = Graph(3, 6, 6)
    y = reader(g, g.batch_norm(g.x, 3))
    assert g.check(tmp_path, y, fold_input_scaling)["BatchNormalization"] == 1


def test_the_end_of_a_function_that_runtimes_know_stays(tmp_path):
    g = Graph(3)
    gelu = g.op("Mul", g.op("Mul", g.x, g.op("Add", g.op("Erf", g.op("Div", g.x, 2**0.5)), 1.0)), 0.5)
    centered = g.op("Sub", gelu, g.op("ReduceMean", gelu, axes=[-1]))
    deviation = g.op("Sqrt", g.op("Add", g.op("ReduceMean", g.op("Mul", centered, centered), axes=[-1]), 1e-3))
    normalized = g.op("Add", g.op("Mul", g.op("Div", centered, deviation), g.weight(3)), g.weight(3))
    outputs = [g.op("Gemm", gelu, g.weight(3, 4)), g.op("Gemm", normalized, g.weight(3, 4))]
    counts = g.check(tmp_path, outputs, fold_input_scaling)
    assert (counts["Mul"], counts["Add"]) == (4, 3)


def test_scaling_that_makes_channels_of_one_stays(tmp_path):
    g = Graph(1, 6, 6)
    y = g.op("Conv", g.op("Mul", g.x, g.weight(3, 1, 1)), g.weight(4, 3, 3, 3))
    assert g.check(tmp_path, y, fold_input_scaling) == {"Mul": 1, "Conv": 1}


PADS = np.asarray([0, 0, 1, 0, 0, 0, 2, 1])


@pytest.mark.parametrize("pads", [None, [1, 1, 0, 1]])
def test_padding_is_folded_into_a_convolution(tmp_path, pads):
    g = Graph(3, 5, 5)
    y = g.op("Conv", g.op("Pad", g.x, PADS), g.weight(4, 3, 3, 3), pads=pads)
    assert g.check(tmp_path, y, fold_padding) == {"Conv": 1}


@pytest.mark.parametrize(("zero_point", "dtype"), [(0, np.int8), (100, np.uint8)])
def test_padding_is_folded_through_quantization(tmp_path, zero_point, dtype):
    g = Graph(3, 5, 5)
    x = g.op("Clip", g.op("Pad", g.x, PADS), -2.0)
    y = g.op("Conv", g.quantized(x, zero_point=zero_point, dtype=dtype), g.weight(4, 3, 3, 3))
    counts = g.check(tmp_path, y, fold_padding)
    assert counts == {"Clip": 1, "QuantizeLinear": 1, "DequantizeLinear": 1, "Conv": 1}


def test_padding_is_folded_into_an_average(tmp_path):
    g = Graph(3, 5, 5)
    y = g.op("AveragePool", g.op("Pad", g.x, PADS), kernel_shape=[3, 3])
    assert g.check(tmp_path, y, fold_padding) == {"AveragePool": 1}


@pytest.mark.parametrize("nonnegative", [True, False])
def test_padding_is_folded_into_a_maximum_of_what_is_never_negative(tmp_path, nonnegative):
    g = Graph(3, 5, 5)
    x = g.op("Relu" if nonnegative else "Tanh", g.x)
    y = g.op("MaxPool", g.op("Pad", x, PADS), kernel_shape=[3, 3], strides=[2, 2])
    assert g.check(tmp_path, y, fold_padding)["Pad"] == (not nonnegative)


@pytest.mark.parametrize(
    "reader",
    [
        lambda g, x: g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),  # padding of both kinds
        lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2]),  # windows of nothing but padding
        lambda g, x: g.op("Conv", x, g.weight(4, 3, 3, 3), auto_pad="SAME_UPPER"),
    ],
)
def test_padding_stays_where_folding_would_not_be_exact(tmp_path, reader):
    g = Graph(3, 5, 5)
    y = reader(g, g.op("Pad", g.op("Relu", g.x), PADS))
    assert g.check(tmp_path, y, fold_padding)["Pad"] == 1


@pytest.mark.parametrize(
    "arguments",
    [(PADS, np.float32(1)), (np.asarray([0, 1, 0, 0, 0, 0, 0, 0]),), (np.asarray([0, 0, 1, 1, 0, 0, -1, 0]),)],
)
def test_other_padding_than_with_zeros_around_the_image_stays(tmp_path, arguments):
    g = Graph(3, 5, 5)
    padded = g.op("Pad", g.x, *arguments)
    y = g.op("Conv", padded, g.weight(4, 4 if arguments[0][1] else 3, 2, 2))
    assert g.check(tmp_path, y, fold_padding)["Pad"] == 1


def test_padding_with_another_reader_is_still_folded(tmp_path):
    g = Graph(3, 5, 5)
    padded = g.op("Pad", g.x, PADS)
    left, right = (g.op("Conv", padded, g.weight(2, 3, 3, 3)) for _ in range(2))
    assert g.check(tmp_path, g.op("Add", left, right), fold_padding) == {"Conv": 2, "Add": 1}


@pytest.mark.parametrize(
    ("ops", "clips"),
    [
        (["Relu"], 0),
        (["Sigmoid", "MaxPool"], 0),
        (["Relu", "Transpose", "Reshape"], 0),
        (["Tanh"], 1),
        (["Relu", "Neg"], 1),
    ],
)
def test_a_clip_without_effect_is_removed(tmp_path, ops, clips):
    attributes = {"MaxPool": {"kernel_shape": [2, 2]}, "Transpose": {"perm": [0, 1, 3, 2]}}
    g = Graph(3, 4, 4)
    x = g.x
    for op_type in ops:
        more = [np.asarray([0, -1])] if op_type == "Reshape" else []
        x = g.op(op_type, x, *more, **attributes.get(op_type, {}))
    y = g.quantized(g.op("Clip", x, -2.54))
    assert g.check(tmp_path, y, drop_clips)["Clip"] == clips


def test_limit_in_front_of_a_matrix_product_is_a_max(tmp_path):
    g = Graph(4)
    y = g.op("MatMul", g.quantized(g.op("Clip", g.x, -0.1)), g.int8_weight(4, 3, axis=1))
    counts = g.check(tmp_path, y, clip_to_max)
    assert counts["Max"] == 1
    assert counts["Clip"] == 0


@pytest.mark.parametrize("limits", [(-0.1, 0.1), (None, 0.1)])
def test_other_limits_in_front_of_it_stay(tmp_path, limits):
    g = Graph(4)
    y = g.op("MatMul", g.quantized(g.op("Clip", g.x, *limits)), g.int8_weight(4, 3, axis=1))
    assert g.check(tmp_path, y, clip_to_max)["Clip"] == 1


def test_a_clip_that_also_limits_above_stays(tmp_path):
    g = Graph(4)
    y = g.quantized(g.op("Clip", g.op("Relu", g.x), -0.1, 0.1))
    assert g.check(tmp_path, y, drop_clips)["Clip"] == 1


def test_what_is_never_negative():
    g = Graph(4)
    relu, tanh = g.op("Relu", g.x), g.op("Tanh", g.x)
    yes = [
        relu,
        g.op("Mul", relu, relu),
        g.op("Add", relu, 1.0),
        g.op("Concat", relu, relu, axis=1),
        g.op("Clip", tanh, 0.0, 6.0),
        g.op("Max", tanh, relu),
        g.quantized(relu),
        g.op("Pad", relu, np.asarray([0, 1, 0, 1])),
        g.op("DequantizeLinear", np.int8([3, 4]), np.float32(1), np.int8(3)),
    ]
    no = [
        g.op("DequantizeLinear", np.int8([3, 4]), np.float32(1), np.int8(4)),
        tanh,
        g.op("Mul", relu, tanh),
        g.op("Add", relu, -1.0),
        g.op("Concat", relu, tanh, axis=1),
        g.op("Clip", tanh, -1.0, 6.0),
        g.op("Sub", relu, relu),
        g.op("Pad", relu, np.asarray([0, 1, 0, 1]), -1.0),
    ]
    found = find_nonnegative(g.builder.graph)
    assert all(v in found for v in yes)
    assert not any(v in found for v in no)


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [([0, -1], [0, 2, 6], 1), ([0, 2, 6], [-1, 4], 1), ([0, 2, 6], [0, 0, 3, 2], 2), ([-1, 6], [0, 2, 3], 2)],
)
def test_reshapes_are_merged_where_zeros_mean_the_same(tmp_path, first, second, count):
    g = Graph(3, 4)
    y = g.op("Reshape", g.op("Reshape", g.x, np.asarray(first)), np.asarray(second))
    assert g.check(tmp_path, g.op("Relu", y), merge_reshapes)["Reshape"] == count


def test_a_reshape_to_the_shape_that_is_there_is_removed(tmp_path):
    g = Graph(3, 4)
    y = g.op("Relu", g.op("Reshape", g.op("Reshape", g.x, np.asarray([0, -1])), np.asarray([0, 3, 4])))
    assert g.check(tmp_path, y, merge_reshapes) == {"Relu": 1}


def test_concatenations_of_one_axis_are_merged(tmp_path):
    g = Graph(3, 4)
    relu, tanh = g.op("Relu", g.x), g.op("Tanh", g.x)
    inner = g.op("Concat", g.op("Concat", relu, tanh, axis=1), g.x, axis=1)
    y = g.op("Concat", inner, g.op("Concat", relu, g.x, axis=1), relu, axis=1)
    assert g.check(tmp_path, y, merge_concats)["Concat"] == 1
    assert len(y.producer().inputs) == 6


@pytest.mark.parametrize("other", ["axis", "reader"])
def test_concatenations_of_another_axis_or_with_another_reader_stay(tmp_path, other):
    g = Graph(3, 4)
    inner = g.op("Concat", g.x, g.op("Relu", g.x), axis=2 if other == "axis" else 1)
    outputs = [g.op("Concat", inner, g.op("Tanh", inner), axis=1)]
    assert g.check(tmp_path, outputs, merge_concats)["Concat"] == 2


@pytest.mark.parametrize("opset", [17, 18])
def test_reductions_have_their_axes_where_the_opset_wants_them(tmp_path, opset):
    g = Graph(3, 4, opset=opset)
    y = g.op("ReduceMean", g.x, axes=[1], keepdims=0)
    reduction_axes(g.builder)
    g.check(tmp_path, y, lambda builder: None)
    assert len(y.producer().inputs) == (1 if opset == 17 else 2)


def test_dead_nodes_and_constants_are_removed(tmp_path):
    g = Graph(4)
    g.op("Add", g.op("Mul", g.x, 3.0), 4.0)
    assert g.check(tmp_path, g.op("Relu", g.x), remove_dead_code) == {"Relu": 1}
    assert not g.builder.graph.initializers
