"""Computes no points of an image that nobody reads.

Convolutions of one point with strides, as a ResNet begins a stage with, read a part of the points of their input. Where
all that reads a tensor skips the same points, the strides move up, through what computes each point by itself, into the
convolutions that make the points. What else goes into these operators is thinned by a MaxPool of one point.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, ints, operand, producer

#: Of the meta data of integers, for verification: the strides at which the file has the points of the tensor.
READ_POINTS = "read_points"

_Strides = tuple[int, ...]

#: Operators that compute each point of their output from the same point of their inputs.
_POINTWISE = frozenset(
    {"Add", "Clip", "Div", "Elu", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mul", "Relu"}
    | {"Sigmoid", "Softplus", "Sub", "Tanh"}
)
#: The same, with numbers for each channel, or for all of them, as further inputs.
_PER_CHANNEL = frozenset({"BatchNormalization", "DequantizeLinear", "QuantizeLinear"})


def skip_unread_points(builder: Builder) -> None:
    read = _read_points(builder.graph)
    _keep_savings(builder.graph, read)
    pools: dict[ir.Value, ir.Value] = {}
    for node in list(builder.graph):
        strides = read.get(node.outputs[0])
        if _is_convolution(node):
            _set_strides(node, strides, read.get(node.inputs[0]))
        elif strides is not None:
            for index in _images(node, len(strides)):
                value = node.inputs[index]
                if value not in read:
                    node.replace_input_with(index, _thinned(builder, node, value, strides, pools))
    for value, strides in read.items():
        _describe(value, strides)


def _read_points(graph: ir.Graph) -> dict[ir.Value, _Strides]:
    """The strides at which all its readers read a tensor; those that are read everywhere are left out."""
    read: dict[ir.Value, _Strides] = {}
    for node in reversed(list(graph)):
        (value, *others) = node.outputs
        strides = {_strides_of(use.node, use.idx, read) for use in value.uses()}
        if not others and not value.is_graph_output() and len(strides) == 1 and (only := strides.pop()) is not None:
            read[value] = only
    return read


def _strides_of(reader: ir.Node, index: int, read: dict[ir.Value, _Strides]) -> _Strides | None:
    """The strides at which an operator reads one of its inputs; `None`: it reads every point."""
    strides = read.get(reader.outputs[0])
    if _is_convolution(reader) and index == 0 and _is_one_point(reader):
        own = _own_strides(reader)
        product = own if strides is None else tuple(a * b for a, b in zip(own, strides, strict=True))
        return product if any(s > 1 for s in product) else None
    return strides if strides is not None and index in _images(reader, len(strides)) else None


def _images(node: ir.Node, axes: int) -> list[int]:
    """The inputs that have a point for each of the output's, if that is computed of these points alone.

    Args:
        node: any.
        axes: how many an image has, but batch and channels.
    """
    if node.op_type in _PER_CHANNEL:
        return [0]
    constants = [array(value) for value in node.inputs]
    if node.op_type not in _POINTWISE or any(c is not None and set(c.shape[-axes:]) - {1} for c in constants):
        return []
    indices = [i for i, value in enumerate(node.inputs) if value is not None and constants[i] is None]
    if len(indices) == 1:
        return indices
    points = [_points(node.inputs[i]) for i in indices]
    return indices if points and points[0] is not None and points.count(points[0]) == len(points) else []


def _points(value: ir.Value | None) -> tuple[int, ...] | None:
    """The sizes of the axes of an image but batch and channels; `None` where they are not known."""
    while value is not None and value.shape is None:
        node = producer(value, "QuantizeLinear", "DequantizeLinear", "Clip", "Relu")
        value = operand(node, 0) if node is not None else None
    sizes = () if value is None or value.shape is None else tuple(value.shape)[2:]
    return sizes if sizes and all(isinstance(size, int) for size in sizes) else None


def _keep_savings(graph: ir.Graph, read: dict[ir.Value, _Strides]) -> None:
    """Forget the tensors that no convolution would compute less for."""
    for node in graph:
        value = node.outputs[0]
        if value not in read or _is_convolution(node):
            continue
        if not any(node.inputs[i] in read for i in _images(node, len(read[value]))):
            del read[value]


def _is_convolution(node: ir.Node) -> bool:
    return node.op_type == "Conv" and "auto_pad" not in node.attributes


def _is_one_point(node: ir.Node) -> bool:
    return set(ints(node, "kernel_shape") or []) == {1} and not any(ints(node, "pads") or [])


def _own_strides(node: ir.Node) -> _Strides:
    return tuple(ints(node, "strides") or [1] * len(ints(node, "kernel_shape") or []))


def _set_strides(node: ir.Node, output: _Strides | None, source: _Strides | None) -> None:
    """Let a convolution make the points of its output that are read, from the points of its input that there are."""
    strides = _own_strides(node)
    if output is not None:
        strides = tuple(a * b for a, b in zip(strides, output, strict=True))
    if source is not None:
        strides = tuple(a // b for a, b in zip(strides, source, strict=True))
    if strides != _own_strides(node):
        node.attributes["strides"] = ir.AttrInt64s("strides", strides)


def _thinned(
    builder: Builder, node: ir.Node, value: ir.Value, strides: _Strides, pools: dict[ir.Value, ir.Value]
) -> ir.Value:
    if value not in pools:
        name = builder.unique(f"{(node.name or '').rsplit('/', 1)[0]}/MaxPool")
        output = ir.Value(name=name, shape=value.shape, type=value.type)
        attributes = {"kernel_shape": [1] * len(strides), "strides": list(strides)}
        builder.graph.insert_before(node, ir.node("MaxPool", [value], attributes, outputs=[output], name=name))
        _describe(output, strides)
        pools[value] = output
    return pools[value]


def _describe(value: ir.Value, strides: _Strides) -> None:
    value.meta[READ_POINTS] = strides
    if value.shape is not None:
        spatial = [-(-d // s) if isinstance(d, int) else None for d, s in zip(value.shape[2:], strides, strict=True)]
        value.shape = ir.Shape([*value.shape[:2], *spatial])
