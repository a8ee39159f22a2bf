"""Tiny ONNX graphs for the tests of passes."""

import numpy as np
import onnx_ir as ir
from onnx_models import op_counts, run

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes.dead_code import remove_dead_code
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import SHARED
from tensorflow_quantization.export.onnx.writing import to_model

RNG = np.random.default_rng(0)


class Graph:
    """Builds a graph op by op; `check` runs it before and after a pass."""

    def __init__(self, *shape, opset=17):
        self.builder = Builder(opset)
        self.builder.graph.opset_imports[""] = opset
        self.x = self.builder.input("x", (None, *shape), "float32")
        self.shape = shape

    def op(self, op_type, *inputs, **attributes):
        inputs = [np.asarray(i, np.float32) if isinstance(i, float | list) else i for i in inputs]
        return self.builder.node(op_type, inputs, attributes, op_type)[0]

    def quantized(self, x, scale=0.02, zero_point=0, dtype=np.int8, shared=False):
        parameters = (np.float32(scale), np.asarray(zero_point, dtype))
        integers = self.op("QuantizeLinear", x, *parameters)
        integers.meta[SHARED] = shared
        return self.op("DequantizeLinear", integers, *parameters)

    def weight(self, *shape):
        return RNG.normal(size=shape).astype("float32")

    def int8_weight(self, *shape, axis=None):
        scale = RNG.uniform(0.01, 0.02, shape[axis]) if axis is not None else np.asarray(0.015)
        zero_point = np.zeros(scale.shape, np.int8)
        integers = RNG.integers(-127, 128, shape).astype(np.int8)
        return self.op("DequantizeLinear", integers, scale.astype("float32"), zero_point, axis=axis)

    def batch_norm(self, x, channels, gamma=None):
        gamma = RNG.normal(size=channels) if gamma is None else np.asarray(gamma)
        others = RNG.normal(size=channels), RNG.normal(size=channels), RNG.uniform(0.5, 2, channels)
        return self.op("BatchNormalization", x, *(a.astype("float32") for a in (gamma, *others)), epsilon=1e-3)

    def check(self, tmp_path, outputs, function, tolerance=1e-5):
        """Operator counts after the pass; the results, one or several, are the same as before."""
        for y in outputs if isinstance(outputs, list) else [outputs]:
            y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), None
            self.builder.graph.outputs.append(y)
        data = RNG.normal(size=(3, *self.shape)).astype("float32")
        results = []
        for apply in (lambda builder: None, function, remove_dead_code):
            apply(self.builder)
            ir.save(to_model(self.builder.graph), tmp_path / "m.onnx")
            results.append(run(tmp_path / "m.onnx", [data], optimize=False))
        for after in results[1:]:
            for x, y in zip(results[0], after, strict=True):
                np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * np.abs(x).max())
        return op_counts(ir.to_proto(to_model(self.builder.graph)))
