"""For OpenVINO: a quantizer on the convolution that a residual sum is taken into, wide enough to change nothing.

    Conv ───────────┐                  Conv ── Q ── DQ ─┐
    Conv ── Q ── DQ ┴ Add ── Q    →    Conv ── Q ── DQ ─┴ Add ── Q

OpenVINO computes the sum of a convolution and quantized integers in the kernel of the convolution, before it rounds.
Where shapes are fixed it sees that only if the convolution has a quantizer of its own. OpenVINO does not round to this
quantizer, it only limits the convolution to the range (seen in OpenVINO 2026.4), and here to a range beyond which the
sum leaves the range of its own quantizer anyway. Of two convolutions OpenVINO takes the sum into the first.

The kernel writes the sum over the integers. Where these have another shape, or are read later, OpenVINO would compute
the sum apart, and round before: there is no such quantizer then.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import HINT
from tensorflow_quantization.export.onnx.passes._affine import read_batch_norm
from tensorflow_quantization.export.onnx.passes._rewriting import insert_pair
from tensorflow_quantization.onnx_graph.operators import LIMITING, SELECTING
from tensorflow_quantization.onnx_graph.quantization import Quantization, source_of
from tensorflow_quantization.onnx_graph.queries import (
    constant,
    is_private,
    name_of,
    only_reader,
    operand,
    producer,
    readers,
    shape_of,
)

logger = logging.getLogger(__name__)

#: Further out than need be, so that no rounding of the scale brings a limit too near.
_MARGIN = 1.01
#: No wider range, so that float16 can hold the scale: a normalization by next to nothing would want one.
_WIDEST = 1e6

_Range = tuple[float, float]


def bounded_sums(builder: Builder) -> int:
    """Returns how many sums got a quantizer."""
    order = {node: index for index, node in enumerate(builder.graph)}
    bounded = 0
    for node in [node for node in builder.graph if node.op_type == "Add"]:
        for convolved, other in ((1, 0), (0, 1)):
            convolution = producer(operand(node, convolved), "Conv")
            added, total = _range(source_of(operand(node, other))), _range_after(node.outputs[0])
            if convolution is None or added is None or total is None:
                continue
            limits = total[0] - added[1], total[1] - added[0]
            reason = _why_not(node, convolution, node.inputs[other], limits, order)
            if reason:
                logger.debug("%s has no bound on %s: %s", name_of(node), name_of(convolution), reason)
                continue
            _bound(builder, node, (convolved, other), limits)
            bounded += 1
            break
    return bounded


def _why_not(
    add: ir.Node, convolution: ir.Node, added: ir.Value, limits: _Range, order: dict[ir.Node, int]
) -> str | None:
    low, high = limits
    if high - low > _WIDEST:
        return "float16 could not hold its scale"
    if not is_private(convolution.outputs[0]):
        return "something else reads the convolution"
    if not _can_be_overwritten(added, add, convolution, order):
        return "OpenVINO cannot write the sum over what is added"
    return None


def _can_be_overwritten(added: ir.Value, add: ir.Node, convolution: ir.Node, order: dict[ir.Node, int]) -> bool:
    """Whether what is added has the shape of the sum and nobody reads it, but the sum, once the convolution runs."""
    shape = shape_of(added)
    if shape is None or shape != shape_of(add.outputs[0]):
        return False
    written = _written_by_a_kernel(added)
    later: set[ir.Node] = set()
    values = [written]
    while values:
        value = values.pop()
        if value is None or value.is_graph_output():
            return False
        for reader in readers(value):
            if reader.op_type == "DequantizeLinear" or reader.op_type in SELECTING:
                values += reader.outputs
            elif reader is not add:
                later.add(reader)
    first = producer(written)
    return first is not None and later <= _before(convolution, order.get(first, 0), order)


def _written_by_a_kernel(value: ir.Value) -> ir.Value | None:
    """The tensor in which a kernel leaves integers that are moved perhaps, and dequantized.

    `None` if OpenVINO may compute them, and more, in one of its subgraphs, of which it does not take a sum in.
    """
    while (moving := producer(value, *SELECTING)) is not None and moving.op_type != "MaxPool":
        value = moving.inputs[0]
    if producer(value, "MaxPool") is not None:
        return value
    integers = operand(producer(value, "DequantizeLinear"), 0)
    written = operand(producer(integers, "QuantizeLinear"), 0)
    while (limiting := producer(written, *LIMITING)) is not None:
        written = operand(limiting, 0)
    kernel = producer(written, "Conv", "Add")
    taken_in = kernel is not None and (kernel.op_type == "Conv" or _is_bounded(kernel))
    return integers if taken_in else None


def _is_bounded(add: ir.Node) -> bool:
    quantize = producer(operand(producer(operand(add, 0), "DequantizeLinear"), 0), "QuantizeLinear")
    return quantize is not None and HINT in quantize.outputs[0].meta


def _before(node: ir.Node, first: int, order: dict[ir.Node, int]) -> set[ir.Node]:
    """The nodes after position `first` that are computed before `node` in any order."""
    found: set[ir.Node] = set()
    nodes = [node]
    while nodes:
        for value in nodes.pop().inputs:
            before = producer(value)
            if before is not None and before not in found and order.get(before, first) >= first:
                found.add(before)
                nodes.append(before)
    return found


def _bound(builder: Builder, node: ir.Node, operands: tuple[int, int], limits: _Range) -> None:
    convolved, other = (node.inputs[index] for index in operands)
    low, high = min(limits[0], 0.0) * _MARGIN, max(limits[1], 0.0) * _MARGIN
    scale = np.float32((high - low) / 254)  # of 255, as the zero point is rounded
    zero_point = np.uint8(np.ceil(-low / scale))
    parameters = [builder.constant(scale), builder.constant(zero_point)]
    integers, floats = insert_pair(builder, convolved, parameters, before=node, inner=HINT)
    integers.meta[HINT] = True
    node.replace_input_with(0, floats)
    node.replace_input_with(1, other)


def _range_after(value: ir.Value) -> _Range | None:
    """The range outside which the only quantizer that reads `value` saturates.

    Between the two may be normalization and limits, which keep order and what lies in the range.
    """
    reader = only_reader(value)
    if reader is None:
        return None
    if reader.op_type == "QuantizeLinear":
        return _range(reader)
    if reader.op_type == "BatchNormalization":
        affine, found = read_batch_norm(reader), _range_after(reader.outputs[0])
        if affine is None or found is None or not affine.factor.all():
            return None
        ends = np.stack([(end - affine.shift) / affine.factor for end in found])
        return float(ends.min()), float(ends.max())
    limits = [limit for limit in reader.inputs[1:] if limit is not None]
    if reader.op_type not in LIMITING or any(constant(limit) is None for limit in limits):
        return None
    return _range_after(reader.outputs[0])


def _range(node: ir.Node | None) -> _Range | None:
    return None if node is None else Quantization.of(node).range
