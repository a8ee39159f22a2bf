"""For OpenVINO: quantize the convolution into which a residual sum fuses, with a range that changes nothing.

    Conv ───────────┐                  Conv ── Q ── DQ ─┐
    Conv ── Q ── DQ ┴ Add ── Q    →    Conv ── Q ── DQ ─┴ Add ── Q

OpenVINO can fuse the sum of a convolution and a quantized shortcut into the kernel of the convolution, before rounding.
With fixed shapes, it does so only if the output of the convolution is quantized. OpenVINO 2026.4 does not round to this
quantizer: it only clips the convolution to the range of the quantizer. The pass chooses a range so wide that, outside
it, the quantizer after the sum saturates anyway. In a sum of two convolutions, OpenVINO fuses the sum into the first.

The kernel overwrites the shortcut with the sum. If the shortcut has another shape, or is read later, OpenVINO would
compute the sum separately, after rounding the convolution: then the pass inserts no quantizer.
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

#: Widens the range, so that the rounded scale does not make it too narrow.
_MARGIN = 1.01
#: The widest range for which float16 can hold the scale; a BatchNormalization with tiny factors asks for more.
_WIDEST = 1e6

_Range = tuple[float, float]


def bounded_sums(builder: Builder) -> int:
    """Quantize convolutions before residual sums, and return the number of sums."""
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
                logger.debug("no quantizer between %s and %s: %s", name_of(convolution), name_of(node), reason)
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
        return "not only the sum reads the convolution"
    if not _can_be_overwritten(added, add, convolution, order):
        return "OpenVINO cannot overwrite the shortcut with the sum"
    return None


def _can_be_overwritten(added: ir.Value, add: ir.Node, convolution: ir.Node, order: dict[ir.Node, int]) -> bool:
    """Whether the shortcut has the shape of the sum, and only the sum reads it after the convolution has run."""
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
    """The tensor of integers that a kernel writes and `value` comes from, dequantized and perhaps moved.

    `None` if OpenVINO may compute the integers in a subgraph: it does not fuse a sum with the output of a subgraph.
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
    fusible = kernel is not None and (kernel.op_type == "Conv" or _is_bounded(kernel))
    return integers if fusible else None


def _is_bounded(add: ir.Node) -> bool:
    """Whether this pass has inserted a quantizer before the Add."""
    quantize = producer(operand(producer(operand(add, 0), "DequantizeLinear"), 0), "QuantizeLinear")
    return quantize is not None and HINT in quantize.outputs[0].meta


def _before(node: ir.Node, first: int, order: dict[ir.Node, int]) -> set[ir.Node]:
    """The nodes at or after position `first` that `node` depends on, so that they always run before it."""
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
    """Quantize the convolution before the Add `node`, and make it the first input of the Add."""
    convolved, other = (node.inputs[index] for index in operands)
    low, high = min(limits[0], 0.0) * _MARGIN, max(limits[1], 0.0) * _MARGIN
    scale = np.float32((high - low) / 254)  # 254, not 255: the zero point is rounded up
    zero_point = np.uint8(np.ceil(-low / scale))
    parameters = [builder.constant(scale), builder.constant(zero_point)]
    integers, floats = insert_pair(builder, convolved, parameters, before=node, inner=HINT)
    integers.meta[HINT] = True
    node.replace_input_with(0, floats)
    node.replace_input_with(1, other)


def _range_after(value: ir.Value) -> _Range | None:
    """The range outside which the only quantizer that reads `value` saturates; `None` if it is not known.

    Limiting operators and a BatchNormalization may lie between the two: they are monotonic.
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
