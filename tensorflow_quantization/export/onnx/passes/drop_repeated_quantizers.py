"""For OpenVINO: no quantizer behind a MaxPool of integers that are quantized alike.

OpenVINO takes integers through a MaxPool by itself, and computes a second quantizer as one more kernel where there is a
zero point.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import operand, producer, replace
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import same_parameters


def drop_repeated_quantizers(builder: Builder) -> None:
    for node in list(builder.graph):
        quantize = producer(operand(node, 0), "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
        pool = producer(operand(quantize, 0), "MaxPool") if quantize is not None else None
        before = producer(operand(pool, 0), "DequantizeLinear") if pool is not None else None
        if quantize is None or pool is None or before is None:
            continue
        if same_parameters(before, quantize):
            replace(node.outputs[0], pool.outputs[0])
