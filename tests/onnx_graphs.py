"""Tiny ONNX graphs for the tests of passes."""

import contextlib
import logging

import numpy as np
import onnx_ir as ir
from onnx_models import op_counts, run

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import SHARED
from tensorflow_quantization.export.onnx.passes.common.dead_code import remove_dead_code
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

    def conv(self, x, channels_in, channels_out, size=1, **attributes):
        kernel = self.weight(channels_out, channels_in, size, size)
        return self.op("Conv", x, kernel, kernel_shape=[size, size], **attributes)

    def shaped(self, value, *shape):
        """The value, whose shape is known but for the batch."""
        value.shape = ir.Shape(["batch", *shape])
        return value

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

    def text(self):
        """The nodes with what they read, to compare."""
        read = [[x and x.name for x in node.inputs] for node in self.builder.graph]
        nodes = [(n.op_type, r, str(n.attributes)) for n, r in zip(self.builder.graph, read, strict=True)]
        return nodes, [y.name for y in self.builder.graph.outputs], sorted(self.builder.graph.initializers)

    def check(self, tmp_path, outputs, function, tolerance=1e-5):
        """Operator counts after the pass, which returns none only where it leaves the graph as it was.

        The results, one or several, are the same as before. What the pass says in its debug log is in `self.log`.
        """
        for y in outputs if isinstance(outputs, list) else [outputs]:
            y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), None
            self.builder.graph.outputs.append(y)
        data = RNG.normal(size=(3, *self.shape)).astype("float32")
        results = []
        for apply in (lambda builder: None, function, remove_dead_code):
            before = self.text()
            with _messages() as messages:
                changed = apply(self.builder)
            if apply is function:
                self.log = "\n".join(messages)
            assert bool(changed) == (self.text() != before), changed
            ir.save(to_model(self.builder.graph), tmp_path / "m.onnx")
            results.append(run(tmp_path / "m.onnx", [data], optimize=False))
        for after in results[1:]:
            for x, y in zip(results[0], after, strict=True):
                np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * np.abs(x).max())
        return op_counts(ir.to_proto(to_model(self.builder.graph)))


@contextlib.contextmanager
def _messages():
    """What passes log."""
    messages = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("tensorflow_quantization.export.onnx.passes")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
