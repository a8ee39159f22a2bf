"""For OpenVINO: a quantizer on the convolution that a residual sum is taken into, wide enough to change nothing.

OpenVINO computes the sum of a convolution and quantized integers in the kernel of the convolution, before it rounds.
Where shapes are fixed it sees that only if the convolution has a quantizer of its own. This one it does not round to,
it only limits the convolution to the range (seen in OpenVINO 2026.4), and here to one beyond which the sum leaves the
range of its own quantizer anyway. Of two convolutions OpenVINO takes the sum into the first.

The kernel writes the sum over the integers. Where these have another shape, or are read later, OpenVINO would compute
the sum apart, and round before: there is no such quantizer then.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import read_batch_norm
from tensorflow_quantization.export.onnx.passes._graph import (
    array,
    is_private,
    operand,
    producer,
    quantizer_pair,
    shape_of,
)
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import MOVING, source_of

#: Of the meta data of integers: their quantizer is a hint to OpenVINO, and rounds only elsewhere. And in its name.
HINT = "openvino_hint"
#: What may be between the sum and its quantizer, as it keeps order and what lies in the range of that.
_LIMITING = ("Relu", "Clip", "Max", "Min")
#: Further out than need be, so that no rounding of the scale brings a limit too near.
_MARGIN = 1.01
#: No wider range, so that float16 can hold the scale: a normalization by next to nothing would want one.
_WIDEST = 1e6

_Range = tuple[float, float]


def bounded_sums(builder: Builder) -> None:
    order = {node: index for index, node in enumerate(builder.graph)}
    for node in list(builder.graph):
        if node.op_type != "Add":
            continue
        for convolved, other in ((1, 0), (0, 1)):
            convolution = producer(operand(node, convolved), "Conv")
            added, total = _range(source_of(operand(node, other))), _range_behind(node.outputs[0])
            if convolution is None or added is None or total is None:
                continue
            value = node.inputs[other]
            assert value is not None
            low, high = total[0] - added[1], total[1] - added[0]
            if high - low > _WIDEST or not is_private(convolution.outputs[0]):
                continue
            if _can_be_overwritten(value, node, convolution, order):
                _bound(builder, node, (convolved, other), (low, high))
                break


def _can_be_overwritten(added: ir.Value, add: ir.Node, convolution: ir.Node, order: dict[ir.Node, int]) -> bool:
    """Whether what is added has the shape of the sum and nobody reads it, but the sum, once the convolution runs."""
    shape = shape_of(added)
    if shape is None or shape != shape_of(add.outputs[0]):
        return False
    written = _written_by_a_kernel(added)
    readers: set[ir.Node] = set()
    values = [written]
    while values:
        value = values.pop()
        if value is None or value.is_graph_output():
            return False
        for reader in (use.node for use in value.uses()):
            if reader.op_type == "DequantizeLinear" or reader.op_type in MOVING:
                values += reader.outputs
            elif reader is not add:
                readers.add(reader)
    first = written.producer() if written is not None else None
    return first is not None and readers <= _before(convolution, order.get(first, 0), order)


def _written_by_a_kernel(value: ir.Value) -> ir.Value | None:
    """The tensor in which a kernel leaves integers that are moved perhaps, and dequantized.

    `None` if OpenVINO may compute them, and more, in one of its subgraphs, of which it does not take a sum in.
    """
    while (moving := producer(value, *MOVING)) is not None and moving.op_type != "MaxPool":
        value = moving.inputs[0]
    if producer(value, "MaxPool") is not None:
        return value
    integers = operand(value.producer(), 0) if producer(value, "DequantizeLinear") else None
    quantize = producer(integers, "QuantizeLinear")
    written = operand(quantize, 0) if quantize is not None else None
    while (limiting := producer(written, *_LIMITING)) is not None:
        written = operand(limiting, 0)
    kernel = producer(written, "Conv", "Add")
    taken_in = kernel is not None and (kernel.op_type == "Conv" or _is_bounded(kernel))
    return integers if taken_in else None


def _is_bounded(add: ir.Node) -> bool:
    quantize = producer(operand(producer(operand(add, 0), "DequantizeLinear"), 0), "QuantizeLinear")
    return quantize is not None and HINT in quantize.outputs[0].meta


def _before(node: ir.Node, first: int, order: dict[ir.Node, int]) -> set[ir.Node]:
    """The nodes that are computed before `node` in any order, of those behind position `first`."""
    found: set[ir.Node] = set()
    nodes = [node]
    while nodes:
        for value in nodes.pop().inputs:
            before = value.producer() if value is not None else None
            if before is not None and before not in found and order.get(before, first) >= first:
                found.add(before)
                nodes.append(before)
    return found


def _bound(builder: Builder, node: ir.Node, operands: tuple[int, int], limits: _Range) -> None:
    convolved, other = (node.inputs[index] for index in operands)
    assert convolved is not None
    low, high = min(limits[0], 0.0) * _MARGIN, max(limits[1], 0.0) * _MARGIN
    scale = np.float32((high - low) / 254)  # of 255, as the zero point is rounded
    zero_point = np.uint8(np.ceil(-low / scale))
    pair = quantizer_pair(builder, convolved, [builder.constant(scale), builder.constant(zero_point)], HINT)
    pair[0].outputs[0].meta[HINT] = True
    builder.graph.insert_before(node, pair)
    node.replace_input_with(0, pair[1].outputs[0])
    node.replace_input_with(1, other)


def _range_behind(value: ir.Value) -> _Range | None:
    """Beyond what the quantizer is at its limit that alone reads a value, perhaps normalized and limited before."""
    if not is_private(value):
        return None
    (reader,) = (use.node for use in value.uses())
    if reader.op_type == "QuantizeLinear":
        return _range(reader)
    if reader.op_type == "BatchNormalization":
        affine, found = read_batch_norm(reader), _range_behind(reader.outputs[0])
        if affine is None or found is None or not affine.factor.all():
            return None
        ends = np.stack([(end - affine.shift) / affine.factor for end in found])
        return float(ends.min()), float(ends.max())
    limits = [limit for limit in reader.inputs[1:] if limit is not None]
    if reader.op_type not in _LIMITING or any(array(limit) is None for limit in limits):
        return None
    return _range_behind(reader.outputs[0])


def _range(node: ir.Node | None) -> _Range | None:
    """What the integers of a quantizer can stand for: the least and the greatest number."""
    scale, zero_point = (array(operand(node, index)) for index in (1, 2)) if node is not None else (None, None)
    if scale is None or zero_point is None or scale.ndim or zero_point.dtype not in (np.int8, np.uint8):
        return None
    limits = np.iinfo(zero_point.dtype)
    low, high = (float(scale) * (limit - int(zero_point)) for limit in (limits.min, limits.max))
    return low, high
