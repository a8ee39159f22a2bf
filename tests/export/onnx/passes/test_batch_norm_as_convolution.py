import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.onnxruntime.batch_norm_as_convolution import batch_norm_as_convolution


@pytest.mark.parametrize("activation", [None, "Relu"])
def test_batch_norm_between_quantizers_becomes_a_convolution(tmp_path, activation):
    g = Graph(4, 3, 3)
    # Of a factor, zero, one that is negative, and one that is nothing beside its shift.
    y = g.batch_norm(g.quantized(g.x), 4, gamma=[0.7, 0.0, -1.3, 1e-12])
    y.shape = ir.Shape(["batch", 4, 3, 3])
    y = g.op(activation, y) if activation else y
    counts = g.check(tmp_path, g.quantized(y), batch_norm_as_convolution)
    assert counts["Conv"] == 1
    assert counts["BatchNormalization"] == 0


def test_bias_of_a_batch_norm_as_convolution_fits_into_32_bits(tmp_path):
    g = Graph(4, 3, 3)
    y = g.batch_norm(g.quantized(g.x), 4, gamma=[1.0, 1e-6, 1e-12, 0.0])
    y.shape = ir.Shape(["batch", 4, 3, 3])
    g.check(tmp_path, g.quantized(y), batch_norm_as_convolution)
    (convolution,) = [node for node in g.builder.graph if node.op_type == "Conv"]
    scale = convolution.inputs[1].producer().inputs[1].const_value.numpy()
    bias = convolution.inputs[2].const_value.numpy()
    assert np.abs(bias / (0.02 * scale)).max() < 2**31


def test_batch_norm_that_writes_floats_stays(tmp_path):
    g = Graph(4, 3, 3)
    y = g.batch_norm(g.quantized(g.x), 4)
    y.shape = ir.Shape(["batch", 4, 3, 3])
    assert g.check(tmp_path, g.op("Relu", y), batch_norm_as_convolution)["Conv"] == 0
    assert "its output is not quantized" in g.log
