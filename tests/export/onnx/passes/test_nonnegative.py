"""Which tensors are never negative."""

import numpy as np
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes._nonnegative import find_nonnegative


def test_what_is_never_negative():
    g = Graph(4)
    relu, tanh = g.op("Relu", g.x), g.op("Tanh", g.x)
    yes = [
        relu,
        g.op("Mul", relu, relu),
        g.op("Add", relu, 1.0),
        g.op("Concat", relu, relu, axis=1),
        g.op("Clip", tanh, 0.0, 6.0),
        g.op("Max", tanh, relu),
        g.quantized(relu),
        g.op("Pad", relu, np.asarray([0, 1, 0, 1])),
        g.op("DequantizeLinear", np.int8([3, 4]), np.float32(1), np.int8(3)),
    ]
    no = [
        g.op("DequantizeLinear", np.int8([3, 4]), np.float32(1), np.int8(4)),
        tanh,
        g.op("Mul", relu, tanh),
        g.op("Add", relu, -1.0),
        g.op("Concat", relu, tanh, axis=1),
        g.op("Clip", tanh, -1.0, 6.0),
        g.op("Sub", relu, relu),
        g.op("Pad", relu, np.asarray([0, 1, 0, 1]), -1.0),
    ]
    found = find_nonnegative(g.builder.graph)
    assert all(v in found for v in yes)
    assert not any(v in found for v in no)
