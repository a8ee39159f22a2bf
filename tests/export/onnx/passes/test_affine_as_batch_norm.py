import numpy as np
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.onnxruntime.affine_as_batch_norm import affine_as_batch_norm

CHANNELS = np.array([0.5, -0.3, 0.2], "float32").reshape(3, 1, 1)


def test_preprocessing_of_channels_before_a_quantizer_is_one_operator(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Div", g.op("Sub", g.op("Mul", g.x, np.float32(1 / 255)), CHANNELS), np.abs(CHANNELS))
    counts = g.check(tmp_path, g.quantized(g.shaped(y, 3, 4, 4)), affine_as_batch_norm)
    assert counts["BatchNormalization"] == 1
    assert not counts["Mul"] + counts["Sub"] + counts["Div"]


def test_preprocessing_by_a_single_number_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Add", g.op("Mul", g.x, np.float32(1 / 127.5)), np.float32(-1))
    assert g.check(tmp_path, g.quantized(g.shaped(y, 3, 4, 4)), affine_as_batch_norm)["Mul"] == 1
    assert "a factor and shift per tensor cost little" in g.log


def test_preprocessing_that_something_else_reads_stays(tmp_path):
    g = Graph(3, 4, 4)
    y = g.shaped(g.op("Sub", g.x, CHANNELS), 3, 4, 4)
    counts = g.check(tmp_path, [g.quantized(y), g.op("Exp", y)], affine_as_batch_norm)
    assert counts["Sub"] == 1 and not counts["BatchNormalization"]
    assert "not only the quantizer reads it" in g.log
