import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.repeat_quantizers import repeat_quantizers


@pytest.mark.parametrize(
    "moving",
    [
        lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2]),
        lambda g, x: g.op("Transpose", x, perm=[0, 1, 3, 2]),
        lambda g, x: g.op("Pad", x, np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    ],
)
def test_quantizer_is_repeated_behind_what_moves_integers(tmp_path, moving):
    g = Graph(2, 6, 6)
    counts = g.check(tmp_path, [g.conv(moving(g, g.quantized(g.x)), 2, 3)], repeat_quantizers)
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 2


def test_quantizer_is_not_repeated_for_floats_only(tmp_path):
    g = Graph(2, 6, 6)
    counts = g.check(tmp_path, [g.op("Exp", g.op("MaxPool", g.quantized(g.x), kernel_shape=[2, 2]))], repeat_quantizers)
    assert counts["QuantizeLinear"] == 1


def test_padding_with_another_number_is_no_moving(tmp_path):
    g = Graph(2, 6, 6)
    padded = g.op("Pad", g.quantized(g.x), np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(0.013))
    assert g.check(tmp_path, [g.conv(padded, 2, 3)], repeat_quantizers)["QuantizeLinear"] == 1
    assert "it does not pad with zero" in g.log


@pytest.mark.parametrize("shared", [True, False])
def test_shared_quantizer_of_a_concatenation_is_that_of_its_parts(tmp_path, shared):
    g = Graph(2, 4, 4)
    joined = g.op("Concat", g.op("Relu", g.x), g.op("Sigmoid", g.x), axis=1)
    counts = g.check(tmp_path, [g.conv(g.quantized(joined, shared=shared), 4, 3)], repeat_quantizers)
    assert counts["QuantizeLinear"] == (3 if shared else 1)
    assert ("is for one reader only" in g.log) != shared


@pytest.mark.parametrize(("target", "pairs"), [("onnxruntime", 3), ("openvino", 4)])
def test_parts_that_have_integers_of_another_scale(tmp_path, target, pairs):
    """ONNX Runtime joins them as they are: of two pairs in a row, it would make one of a third scale."""
    g = Graph(2, 4, 4)
    g.builder.target = target
    joined = g.op("Concat", g.quantized(g.x, scale=0.03), g.op("Sigmoid", g.x), axis=1)
    counts = g.check(tmp_path, [g.conv(g.quantized(joined, shared=True), 4, 3)], repeat_quantizers)
    assert counts["QuantizeLinear"] == pairs
