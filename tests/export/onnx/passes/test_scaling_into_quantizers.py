import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.onnxruntime.scaling_into_quantizers import scaling_into_quantizers

CHANNELS = np.array([0.5, -0.3, 0.2], "float32").reshape(3, 1, 1)


@pytest.mark.parametrize("factor", [np.float32(1 / 255), np.full((3, 1, 1), 1 / 255, "float32")], ids=["one", "all"])
def test_a_factor_in_front_of_a_quantizer_is_in_its_scale(tmp_path, factor):
    g = Graph(3, 4, 4)
    y = g.op("Div", g.op("Mul", g.x, factor), np.float32(0.1))
    quantized = g.quantized(g.shaped(y, 3, 4, 4), scale=0.01)
    counts = g.check(tmp_path, quantized, scaling_into_quantizers)
    assert not counts["Mul"] + counts["Div"]
    before, after = (
        node.inputs[1].const_value.numpy() for node in (quantized.producer().inputs[0].producer(), quantized.producer())
    )
    np.testing.assert_allclose(before, after * 25.5, rtol=1e-6)


@pytest.mark.parametrize("factor", [np.float32(-0.5), np.abs(CHANNELS)], ids=["negative", "by channel"])
def test_other_factors_in_front_of_a_quantizer_stay(tmp_path, factor):
    g = Graph(3, 4, 4)
    quantized = g.quantized(g.shaped(g.op("Mul", g.x, factor), 3, 4, 4), scale=0.01)
    assert g.check(tmp_path, quantized, scaling_into_quantizers)["Mul"] == 1
    assert "it is not one positive factor" in g.log


def test_a_factor_of_what_something_else_reads_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = g.shaped(g.op("Mul", g.x, np.float32(0.5)), 3, 4, 4)
    assert g.check(tmp_path, [g.quantized(y), g.op("Exp", y)], scaling_into_quantizers)["Mul"] == 1
    assert "not only the quantizer reads it" in g.log


def test_a_factor_within_a_model_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = g.shaped(g.op("Mul", g.op("Exp", g.x), np.float32(0.5)), 3, 4, 4)
    assert g.check(tmp_path, g.quantized(y), scaling_into_quantizers)["Mul"] == 1
    assert "its source is not a model input" in g.log


def test_a_factor_and_a_shift_in_front_of_a_quantizer_stay(tmp_path):
    g = Graph(3, 4, 4)
    y = g.shaped(g.op("Add", g.op("Mul", g.x, np.float32(1 / 127.5)), np.float32(-1)), 3, 4, 4)
    assert g.check(tmp_path, g.quantized(y), scaling_into_quantizers)["Mul"] == 1
    assert "it adds something" in g.log
