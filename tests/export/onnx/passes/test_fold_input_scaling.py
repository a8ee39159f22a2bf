import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.fold_input_scaling import fold_input_scaling


def scaled_image(g):
    """What Rescaling and Normalization make of an image."""
    return g.op("Div", g.op("Sub", g.op("Mul", g.x, 0.01), g.weight(3, 1, 1)), np.exp(g.weight(3, 1, 1)))


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
    assert "one Add would have to stay" in g.log


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
    assert "it may end a GELU" in g.log


def test_scaling_that_makes_channels_of_one_stays(tmp_path):
    g = Graph(1, 6, 6)
    y = g.op("Conv", g.op("Mul", g.x, g.weight(3, 1, 1)), g.weight(4, 3, 3, 3))
    assert g.check(tmp_path, y, fold_input_scaling) == {"Mul": 1, "Conv": 1}
    assert "its input may have fewer channels" in g.log
