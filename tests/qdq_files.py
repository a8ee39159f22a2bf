"""Build tiny ONNX files with Q/DQ, node by node, as somebody else's exporter might write them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class QdqFile:
    """Collects nodes; every method that adds some returns the name of their output.

    Nodes are called after their operator, `conv`, `conv_2`, unless named; outputs after their node, `conv_out`.
    """

    def __init__(self, opset=17):
        self.opset = opset
        self.nodes, self.initializers, self.inputs, self.outputs, self.domains = [], [], [], [], set()
        self.names = set()
        self.rng = np.random.default_rng(0)

    def name(self, kind):
        name, number = kind, 1
        while name in self.names:
            number += 1
            name = f"{kind}_{number}"
        self.names.add(name)
        return name

    def input(self, shape=(1, 8, 8, 8), name="x", dtype=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, array, kind="constant"):
        name = self.name(kind)
        tensor = array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(np.asarray(array), name)
        tensor.name = name
        self.initializers.append(tensor)
        return name

    def floats(self, *shape):
        return self.constant(self.rng.normal(size=shape).astype(np.float32), "floats")

    def ints(self, *values):
        return self.constant(np.array(values, np.int64), "ints")

    def op(self, op_type, *inputs, name=None, domain="", outputs=1, **attributes):
        """One node; with several outputs, a list of names."""
        name = self.name(name or op_type.lower())
        self.domains.add(domain)
        made = [f"{name}_out"] if outputs == 1 else [f"{name}_out_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, made, name=name, domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def quantize(self, x, scale=0.05, zero=0, dtype=np.uint8, **attributes):
        """A QuantizeLinear; (its output, its scale, its zero point)."""
        scale = scale if isinstance(scale, str) else self.constant(np.asarray(scale, np.float32), "scale")
        zero = zero if isinstance(zero, str) else self.constant(np.asarray(zero, dtype), "zero")
        return self.op("QuantizeLinear", x, scale, zero, name="q", **attributes), scale, zero

    def pair(self, x, scale=0.05, zero=0, dtype=np.uint8, **attributes):
        """A QuantizeLinear and its DequantizeLinear."""
        q, scale, zero = self.quantize(x, scale, zero, dtype, **attributes)
        return self.op("DequantizeLinear", q, scale, zero, name="dq", **attributes)

    def weights(self, *shape, axis=0, dtype=np.int8, zero=0):
        """Stored integers and their DequantizeLinear; the scales differ, which equal ones would hide."""
        limits = np.iinfo(dtype)
        values = self.rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
        count = () if axis is None else (shape[axis],)
        scale = np.float32(0.02) if axis is None else np.linspace(0.01, 0.03, shape[axis], dtype=np.float32)
        constants = [self.constant(values, "w"), self.constant(scale, "w_scale")]
        constants.append(self.constant(np.full(count, zero, dtype), "w_zero"))
        attributes = {} if axis is None else {"axis": axis}
        return self.op("DequantizeLinear", *constants, name="w_dq", **attributes)

    def conv(self, x, channels=8, kernel=3, name="conv", **attributes):
        """A Conv of 8 filters with a bias, its weights quantized, its output as large as its input."""
        attributes = {"pads": [kernel // 2] * 4, **attributes}
        return self.op("Conv", x, self.weights(8, channels, kernel, kernel), self.floats(8), name=name, **attributes)

    def save(self, path, *outputs):
        """Write the file with these outputs; its path."""
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        for info in infos:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
        graph = helper.make_graph(self.nodes, "graph", self.inputs, infos, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in self.domains if d)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return str(path)
