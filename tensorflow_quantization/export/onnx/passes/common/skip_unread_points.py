"""Do not compute the points of an image that nothing reads.

    Conv 3x3 ── Relu ── Conv 1x1, strides 2    →    Conv 3x3, strides 2 ── Relu ── Conv 1x1

    x ───────┐                                      x ── MaxPool 1x1, strides 2 ─┐
    Conv 3x3 ┴ Add ── Conv 1x1, strides 2      →    Conv 3x3, strides 2 ─────────┴ Add ── Conv 1x1

A strided 1x1 convolution, such as the first of a ResNet stage, reads only some points of its input. If all readers of a
tensor skip the same points, the strides move back, through operators that compute each point separately, into the
convolutions that compute the points. A strided 1x1 MaxPool drops these points from the other inputs of such operators.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import READ_POINTS
from tensorflow_quantization.onnx_graph.operators import CHANNELWISE, POINTWISE
from tensorflow_quantization.onnx_graph.queries import attribute, constant, name_of, operand, producer

logger = logging.getLogger(__name__)

_Strides = tuple[int, ...]


def skip_unread_points(builder: Builder) -> int:
    """Move strides to earlier convolutions, and return the number of convolutions whose strides changed."""
    read = _read_points(builder.graph)
    _keep_savings(builder.graph, read)
    pools: dict[ir.Value, ir.Value] = {}
    changed = 0
    for node in list(builder.graph):
        strides = read.get(node.outputs[0])
        if _is_convolution(node):
            changed += _set_strides(node, strides, read.get(node.inputs[0]))
        elif strides is not None:
            for index in _images(node, len(strides)):
                value = node.inputs[index]
                if value not in read:
                    node.replace_input_with(index, _thinned(builder, node, value, strides, pools))
    for value, strides in read.items():
        _describe(value, strides)
    return changed


def _read_points(graph: ir.Graph) -> dict[ir.Value, _Strides]:
    """The strides at which all readers of a tensor read it; tensors that are read at every point are omitted."""
    read: dict[ir.Value, _Strides] = {}
    for node in reversed(list(graph)):
        (value, *others) = node.outputs
        strides = {_strides_of(use.node, use.idx, read) for use in value.uses()}
        if strides <= {None}:
            continue
        if others or value.is_graph_output() or len(strides) > 1:
            logger.debug("%s computes all points: its readers do not all skip the same points", name_of(node))
            continue
        (only,) = strides
        assert only is not None
        read[value] = only
    return read


def _strides_of(reader: ir.Node, index: int, read: dict[ir.Value, _Strides]) -> _Strides | None:
    """The strides at which an operator reads the input at `index`; `None` if it reads every point."""
    strides = read.get(reader.outputs[0])
    if _is_convolution(reader) and index == 0 and _is_one_point(reader):
        own = _own_strides(reader)
        product = own if strides is None else tuple(a * b for a, b in zip(own, strides, strict=True))
        return product if any(s > 1 for s in product) else None
    return strides if strides is not None and index in _images(reader, len(strides)) else None


def _images(node: ir.Node, axes: int) -> list[int]:
    """The indices of the inputs whose points alone determine the same points of the output.

    Args:
        node: any node.
        axes: the number of axes of an image besides batch and channels.
    """
    if node.op_type in CHANNELWISE:
        return [0]
    constants = [constant(value) for value in node.inputs]
    if node.op_type not in POINTWISE or any(c is not None and set(c.shape[-axes:]) - {1} for c in constants):
        return []
    indices = [i for i, value in enumerate(node.inputs) if value is not None and constants[i] is None]
    if len(indices) == 1:
        return indices
    points = [_points(node.inputs[i]) for i in indices]
    return indices if points and points[0] is not None and points.count(points[0]) == len(points) else []


def _points(value: ir.Value | None) -> tuple[int, ...] | None:
    """The sizes of an image without batch and channels; `None` if they are unknown."""
    while value is not None and value.shape is None:
        node = producer(value, "QuantizeLinear", "DequantizeLinear", "Clip", "Relu")
        value = operand(node, 0) if node is not None else None
    sizes = () if value is None or value.shape is None else tuple(value.shape)[2:]
    return sizes if sizes and all(isinstance(size, int) for size in sizes) else None


def _keep_savings(graph: ir.Graph, read: dict[ir.Value, _Strides]) -> None:
    """Remove from `read` the tensors for which no convolution would compute less."""
    for node in graph:
        value = node.outputs[0]
        if value not in read or _is_convolution(node):
            continue
        if not any(node.inputs[i] in read for i in _images(node, len(read[value]))):
            del read[value]


def _is_convolution(node: ir.Node) -> bool:
    return node.op_type == "Conv" and "auto_pad" not in node.attributes


def _is_one_point(node: ir.Node) -> bool:
    return set(attribute(node, "kernel_shape", ())) == {1} and not any(attribute(node, "pads", ()))


def _own_strides(node: ir.Node) -> _Strides:
    return tuple(attribute(node, "strides", [1] * len(attribute(node, "kernel_shape", ()))))


def _set_strides(node: ir.Node, output: _Strides | None, source: _Strides | None) -> bool:
    """Set the strides so that a convolution computes only the output points that are read.

    Args:
        node: the convolution.
        output: the strides at which its output is read.
        source: the strides that its input already has.

    Returns:
        Whether the strides changed.
    """
    strides = _own_strides(node)
    if output is not None:
        strides = tuple(a * b for a, b in zip(strides, output, strict=True))
    if source is not None:
        strides = tuple(a // b for a, b in zip(strides, source, strict=True))
    if strides == _own_strides(node):
        return False
    node.attributes["strides"] = ir.AttrInt64s("strides", strides)
    return True


def _thinned(
    builder: Builder, node: ir.Node, value: ir.Value, strides: _Strides, pools: dict[ir.Value, ir.Value]
) -> ir.Value:
    """The points of `value` at these strides, from a MaxPool that is inserted once per value."""
    if value not in pools:
        attributes = {"kernel_shape": [1] * len(strides), "strides": list(strides)}
        pools[value] = builder.insert("MaxPool", [value], attributes, before=node, like=value)
        _describe(pools[value], strides)
    return pools[value]


def _describe(value: ir.Value, strides: _Strides) -> None:
    """Record the strides in the metadata of `value`, and divide its shape by them."""
    value.meta[READ_POINTS] = strides
    if value.shape is not None:
        spatial = [-(-d // s) if isinstance(d, int) else None for d, s in zip(value.shape[2:], strides, strict=True)]
        value.shape = ir.Shape([*value.shape[:2], *spatial])
