import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.fold_batch_norm import fold_batch_norm


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
    assert "cannot hold the factors" in g.log


@pytest.mark.parametrize("also_read", ["by another node", "by the graph"])
def test_batch_norm_stays_where_the_convolution_has_another_reader(tmp_path, also_read):
    g = Graph(3, 5, 5)
    conv = g.op("Conv", g.x, g.weight(3, 3, 1, 1))
    y = g.op("Add", conv, g.batch_norm(conv, 3)) if also_read == "by another node" else g.batch_norm(conv, 3)
    if also_read == "by the graph":
        conv.type = ir.TensorType(ir.DataType.FLOAT)
        g.builder.graph.outputs.append(conv)
    assert g.check(tmp_path, y, fold_batch_norm)["BatchNormalization"] == 1
    assert "BatchNormalization is not folded into Conv: something else reads the product" in g.log


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
