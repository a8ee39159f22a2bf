"""What quantizers say, and where integers come from."""

import numpy as np
import pytest
from onnx_graphs import Graph
from qdq_files import QdqFile

from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph
from tensorflow_quantization.onnx_graph.quantization import Quantization, same_parameters, source_of


def load(tmp_path, build, **kwargs):
    file = QdqFile(**kwargs)
    return QdqGraph.load(file.save(tmp_path / "m.onnx", *build(file)))


def only(nodes):
    (node,) = nodes
    return node


@pytest.mark.parametrize(
    ("kwargs", "dtype", "zero", "limits"),
    [
        ({}, "uint8", 0, (0, 255)),
        ({"dtype": np.int8, "zero": -3}, "int8", -3, (-128, 127)),
        ({"dtype": np.int16}, "int16", 0, (-32768, 32767)),
    ],
)
def test_quantization_of_a_pair(kwargs, dtype, zero, limits, tmp_path):
    graph = load(tmp_path, lambda f: [f.pair(f.input(), 0.25, **kwargs)], opset=21)
    for node in (*graph.quantizes, *graph.dequantizes):
        q = Quantization.of(node)
        assert (q.dtype, q.zero, q.limits, q.explicit, q.per_channel) == (dtype, zero, limits, True, False)
        assert q.scale == np.float32(0.25)


def test_left_out_zero_point_is_an_implicit_uint8(tmp_path):
    def build(f):
        scale = f.constant(np.float32(0.1))
        return [f.op("DequantizeLinear", f.op("QuantizeLinear", f.input(), scale), scale)]

    graph = load(tmp_path, build)
    q, dq = Quantization.of(only(graph.quantizes)), Quantization.of(only(graph.dequantizes))
    assert (q.dtype, q.explicit, q.zero) == ("uint8", False, 0)
    assert dq.dtype == "uint8"


def test_the_range_is_what_the_integers_stand_for():
    g = Graph(4)
    signed, unsigned = (g.quantized(g.x, 0.5, z, t).producer() for z, t in ((0, np.int8), (100, np.uint8)))
    assert Quantization.of(signed).range == (-64.0, 63.5)
    assert Quantization.of(unsigned).range == (-50.0, 77.5)


def test_scales_of_channels_have_no_range():
    g = Graph(4)
    assert Quantization.of(g.int8_weight(4, 3, axis=1).producer()).range is None


def test_parameters_are_the_same_if_all_numbers_are():
    g = Graph(4)
    first, same = (g.quantized(g.x, 0.5).producer() for _ in range(2))
    assert same_parameters(first, same)
    for other in ({"scale": 0.4}, {"zero_point": 1}, {"dtype": np.uint8}):
        assert not same_parameters(first, g.quantized(g.x, **{"scale": 0.5, **other}).producer())


def test_the_source_is_the_quantizer_of_what_was_only_moved():
    g = Graph(3, 4, 4)
    x = g.quantized(g.x)
    moved = g.op("MaxPool", g.op("Transpose", x, perm=[0, 1, 3, 2]), kernel_shape=[2, 2])
    zeros = g.op("Pad", x, np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    ones = g.op("Pad", x, np.array([0, 0, 1, 1, 0, 0, 1, 1]), 1.0)
    assert source_of(x) is source_of(moved) is source_of(zeros) is x.producer()
    assert source_of(ones) is source_of(g.op("Relu", x)) is source_of(g.x.onnx) is source_of(None) is None
