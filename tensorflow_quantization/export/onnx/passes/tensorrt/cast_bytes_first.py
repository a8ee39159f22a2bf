"""For TensorRT: a uint8 input of the model is cast before it is moved.

    input ── Transpose ── Cast    →    input ── Cast ── Transpose

The values are the same. TensorRT takes bytes as inputs, but has no operator on them other than Cast.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.operators import MOVING
from tensorflow_quantization.onnx_graph.queries import attribute, readers

_FLOAT = ir.DataType.FLOAT


def cast_bytes_first(builder: Builder) -> int:
    """Cast uint8 inputs to float32 before operators that only move them, and return the number of moved casts."""
    changed = 0
    for value in list(builder.graph.inputs):
        moving = _moving(value) if value.dtype == ir.DataType.UINT8 else []
        if not moving:
            continue
        first = next(node for node in builder.graph if node in moving)
        floats = builder.insert("Cast", [value], {"to": int(_FLOAT)}, before=first, name=f"{value.name}/Cast")
        floats.shape, floats.type = value.shape, ir.TensorType(_FLOAT)
        for node in moving:
            node.replace_input_with(0, floats if node.inputs[0] is value else node.inputs[0])
            node.outputs[0].type = ir.TensorType(_FLOAT)
        for cast in [reader for node in moving for reader in readers(node.outputs[0]) if reader.op_type == "Cast"]:
            if attribute(cast, "to") == int(_FLOAT):
                replace(cast.outputs[0], cast.inputs[0])
            changed += 1
    return changed


def _moving(value: ir.Value) -> list[ir.Node]:
    """The operators that move `value` on its way to Casts; none if anything but a Cast reads the values."""
    found: list[ir.Node] = []
    for node in readers(value):
        if node.op_type == "Cast":
            continue
        if node.op_type not in MOVING or node.inputs[0] is not value or node.outputs[0].is_graph_output():
            return []
        after = _moving(node.outputs[0])
        if not after and any(reader.op_type != "Cast" for reader in readers(node.outputs[0])):
            return []
        found += [node, *after]
    return found
