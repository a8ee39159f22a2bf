"""Writes the Clip in front of a quantized matrix product as a Max, where it has one limit.

OpenVINO (2026.4) takes a Clip into the FakeQuantize that it makes of QuantizeLinear, and for the input of a MatMul in
integers then computes with wrong scales; a Max it leaves alone.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import operand, producer, replace


def clip_to_max(builder: Builder) -> None:
    for node in list(builder.graph):
        if node.op_type != "MatMul":
            continue
        dequantize = producer(operand(node, 0), "DequantizeLinear")
        quantize = producer(operand(dequantize, 0), "QuantizeLinear") if dequantize is not None else None
        clip = producer(operand(quantize, 0), "Clip") if quantize is not None else None
        if clip is None or operand(clip, 1) is None or operand(clip, 2) is not None:
            continue
        name = builder.unique(f"{(clip.name or '').rsplit('/', 1)[0]}/Max")
        limited = ir.node("Max", clip.inputs[:2], outputs=[ir.Value(name=name)], name=name)
        old, new = clip.outputs[0], limited.outputs[0]
        new.shape, new.type = old.shape, old.type
        builder.graph.insert_after(clip, limited)
        replace(old, new)
