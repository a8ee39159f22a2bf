import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.onnxruntime.unsigned_activations import unsigned_activations


def zero_points(g):
    nodes = [node for node in g.builder.graph if node.op_type == "QuantizeLinear"]
    values = [node.inputs[2].const_value.numpy() for node in nodes]
    assert all(value.dtype == np.uint8 for value in values)
    return {int(value) for value in values}


def test_signed_integers_become_unsigned_around_128(tmp_path):
    g = Graph(2, 4, 4)
    counts = g.check(tmp_path, [g.conv(g.quantized(g.x), 2, 3)], unsigned_activations)
    assert counts["Clip"] == 0
    assert zero_points(g) == {128}


def test_integers_of_nothing_negative_keep_zero_point_0_and_their_upper_limit(tmp_path):
    g = Graph(2, 4, 4)
    y = g.conv(g.quantized(g.op("Relu", g.x), scale=0.01), 2, 3)  # 127 * 0.01 is exceeded by the data
    assert g.check(tmp_path, [y], unsigned_activations)["Clip"] == 1
    assert zero_points(g) == {0}


@pytest.mark.parametrize(
    ("zero_point", "read", "reason"),
    [(3, False, "its zero point is not 0"), (0, True, "not only DequantizeLinear reads its integers")],
)
def test_other_integers_stay_signed(tmp_path, zero_point, read, reason):
    g = Graph(2, 4, 4)
    x = g.quantized(g.x, zero_point=zero_point)
    outputs = [g.conv(x, 2, 3), g.op("Cast", x.producer().inputs[0], to=1)] if read else [g.conv(x, 2, 3)]
    g.check(tmp_path, outputs, unsigned_activations)
    assert reason in g.log
