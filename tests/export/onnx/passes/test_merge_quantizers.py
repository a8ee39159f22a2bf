from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.merge_quantizers import merge_quantizers


def test_equal_quantizers_of_one_tensor_become_one(tmp_path):
    g = Graph(2, 4, 4)
    outputs = [g.conv(g.quantized(g.x), 2, 3), g.conv(g.quantized(g.x), 2, 3)]
    assert g.check(tmp_path, outputs, merge_quantizers)["QuantizeLinear"] == 1


def test_quantizers_that_differ_stay_apart(tmp_path):
    g = Graph(2, 4, 4)
    outputs = [g.conv(g.quantized(g.x), 2, 3), g.conv(g.quantized(g.x, scale=0.03), 2, 3)]
    assert g.check(tmp_path, outputs, merge_quantizers)["QuantizeLinear"] == 2
    assert "their scales or zero points differ" in g.log
