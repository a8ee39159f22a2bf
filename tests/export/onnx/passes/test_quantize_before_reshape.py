import numpy as np
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.openvino.quantize_before_reshape import quantize_before_reshape


def test_quantizer_goes_before_the_reshape(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Reshape", g.op("GlobalAveragePool", g.x), np.array([0, 3]))
    y = g.op("MatMul", g.quantized(y), g.int8_weight(3, 5, axis=1))
    g.check(tmp_path, y, quantize_before_reshape)
    order = [node.op_type for node in g.builder.graph if node.op_type != "DequantizeLinear"]
    assert order == ["GlobalAveragePool", "QuantizeLinear", "Reshape", "MatMul"]


def test_a_quantizer_that_repeats_the_one_before_the_reshape_is_removed(tmp_path):
    g = Graph(3, 4, 4)
    y = g.quantized(g.op("Concat", g.x, g.x, axis=1))
    y = g.quantized(g.op("Reshape", y, np.array([0, 6, 16])))
    g.check(tmp_path, g.op("MatMul", y, g.int8_weight(16, 5, axis=1)), quantize_before_reshape)
    order = [node.op_type for node in g.builder.graph if node.op_type != "DequantizeLinear"]
    assert order == ["Concat", "QuantizeLinear", "Reshape", "MatMul"]


def test_quantizer_stays_behind_a_reshape_that_others_read(tmp_path):
    g = Graph(3, 4, 4)
    y = g.op("Reshape", g.op("GlobalAveragePool", g.x), np.array([0, 3]))
    outputs = [g.op("MatMul", g.quantized(y), g.int8_weight(3, 5, axis=1)), g.op("Exp", y)]
    g.check(tmp_path, outputs, quantize_before_reshape)
    assert [node.op_type for node in g.builder.graph][:2] == ["GlobalAveragePool", "Reshape"]
    assert "something else reads the output of the Reshape" in g.log
