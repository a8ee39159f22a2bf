"""Joins Reshapes that follow one another, and removes one to the shape that its input already has.

Also with a quantizer in between, which does not care for the shape: so in squeeze-and-excitation, which pools, flattens
and unflattens, nothing stands between the integers.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, is_private, operand, producer, replace


def merge_reshapes(builder: Builder) -> None:
    for node in list(builder.graph):
        if node.op_type == "QuantizeLinear":
            _skip_before_quantizer(node)
        if node.op_type != "Reshape":
            continue
        previous = producer(operand(node, 0), "Reshape")
        if previous is not None and _keeps_meaning(_dims(previous), _dims(node)):
            node.replace_input_with(0, operand(previous, 0))
        source = operand(node, 0)
        if source is not None and _is_shape_of(_dims(node), source.shape):
            replace(node.outputs[0], source)


def _skip_before_quantizer(quantize: ir.Node) -> None:
    """Quantize what a Reshape reads, if all that read it dequantized are Reshapes themselves."""
    reshape, (integers,) = producer(operand(quantize, 0), "Reshape"), quantize.outputs
    if reshape is None or not is_private(integers):
        return
    (dequantize,) = integers.consumers()
    (floats,) = dequantize.outputs
    readers = [use.node for use in floats.uses()]
    if dequantize.op_type != "DequantizeLinear" or floats.is_graph_output() or not readers:
        return
    if all(r.op_type == "Reshape" and _keeps_meaning(_dims(reshape), _dims(r)) for r in readers):
        source = operand(reshape, 0)
        quantize.replace_input_with(0, source)
        integers.shape = None
        floats.shape, floats.type = (source.shape, source.type) if source is not None else (None, None)


def _dims(node: ir.Node) -> list[int]:
    dims = array(operand(node, 1))
    return [] if dims is None else dims.tolist()


def _keeps_meaning(first: list[int], second: list[int]) -> bool:
    """Whether `second` means the same when it is applied to the input of `first`; a 0 copies an axis of the input."""
    if not first or not second or 0 in second[1:]:
        return False
    return second[0] != 0 or first[0] == 0


def _is_shape_of(dims: list[int], shape: ir.Shape | None) -> bool:
    if shape is None or not dims or len(shape) != len(dims):
        return False
    return dims[0] in (0, shape[0]) and all(d == known for d, known in zip(dims[1:], list(shape)[1:], strict=True))
