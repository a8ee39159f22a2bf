"""Lets quantizers of one tensor with the same scale and zero point be one, for runtimes that fuse only then.

Not for TensorRT, which fuses each with what reads it: there a pair for each reader is the safer form.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, operand, replace


def merge_quantizers(builder: Builder) -> None:
    known: dict[tuple, ir.Node] = {}
    for node in list(builder.graph):
        if node.op_type not in ("Clip", "QuantizeLinear", "DequantizeLinear") or array(operand(node, 0)) is not None:
            continue
        constants = [array(operand(node, i)) for i in (1, 2)]
        if any(c is None and operand(node, i) is not None for i, c in enumerate(constants, start=1)):
            continue
        key = (
            node.op_type,
            operand(node, 0),
            *((c.dtype.str, c.tobytes()) if c is not None else None for c in constants),
        )
        first = known.setdefault(key, node)
        if first is not node:
            replace(node.outputs[0], first.outputs[0])
