import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.fold_padding import fold_padding

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
    ("reader", "reason"),
    [
        (lambda g, x: g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "the pooling pads, too"),
        (lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2]), "a window would see padding only"),
        (lambda g, x: g.op("Conv", x, g.weight(4, 3, 3, 3), auto_pad="SAME_UPPER"), "the node has auto_pad"),
    ],
)
def test_padding_stays_where_folding_would_not_be_exact(tmp_path, reader, reason):
    g = Graph(3, 5, 5)
    y = reader(g, g.op("Pad", g.op("Relu", g.x), PADS))
    assert g.check(tmp_path, y, fold_padding)["Pad"] == 1
    assert reason in g.log


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((PADS, np.float32(1)), "does not pad with zero"),
        ((np.asarray([0, 1, 0, 0, 0, 0, 0, 0]),), "the batch or the channels"),
        ((np.asarray([0, 0, 1, 1, 0, 0, -1, 0]),), "or negative"),
    ],
)
def test_other_padding_than_with_zeros_around_the_image_stays(tmp_path, arguments, reason):
    g = Graph(3, 5, 5)
    padded = g.op("Pad", g.x, *arguments)
    y = g.op("Conv", padded, g.weight(4, 4 if arguments[0][1] else 3, 2, 2))
    assert g.check(tmp_path, y, fold_padding)["Pad"] == 1
    assert reason in g.log


def test_padding_with_another_reader_is_still_folded(tmp_path):
    g = Graph(3, 5, 5)
    padded = g.op("Pad", g.x, PADS)
    left, right = (g.op("Conv", padded, g.weight(2, 3, 3, 3)) for _ in range(2))
    assert g.check(tmp_path, g.op("Add", left, right), fold_padding) == {"Conv": 2, "Add": 1}
