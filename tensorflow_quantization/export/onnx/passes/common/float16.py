"""Convert the float32 operators of a graph to float16. Inputs and outputs of the graph keep their dtypes.

    x ── Conv(W) ── y                      x ── Cast ── Conv(W) ── Cast ── y
      float32               →            float32      float16           float32

Operators that do not support float16, and inputs that must be float32, such as the scales of a Resize, keep float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_dequantize,
    is_quantize,
    layer_of,
    operand,
    readers,
)
from tensorflow_quantization.text.messages import shortened

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
#: The first opset in which QuantizeLinear and DequantizeLinear accept float16.
_SCALES_OPSET = 19
_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: For these operators, a constant that is too large for float16 may become the largest float16 number.
_LIMITS = frozenset({"Where", "Clip", "Min", "Max"})


def require_scales(builder: Builder) -> None:
    """Raise the opset until it has float16 scales, if the graph has quantizers. Run it before opset-dependent passes.

    Raises:
        OpsetError: the requested opset is older.
    """
    if any(node.op_type in _QUANTIZERS for node in builder.graph):
        builder.require(_SCALES_OPSET, 'A quantized model with precision="float16"')


def check_concatenations(builder: Builder) -> None:
    """Check that ONNX Runtime loads the graph with float16 scales. It turns a concatenation into QLinearConcat.

    Measured with ONNX Runtime 1.32: of its integer kernels, only this one is chosen and then refuses float16 scales.

    Raises:
        ExportError: a quantizer reads a concatenation of quantized tensors. The message names the layers.
    """
    refused = [
        _layer(node)
        for node in builder.graph
        if node.op_type == "Concat"
        and all(is_dequantize(value.producer()) for value in node.inputs if value is not None)
        and any(map(is_quantize, readers(node.outputs[0])))
    ]
    if refused:
        raise ExportError(
            f'ONNX Runtime does not load precision="float16" with quantized concatenations: {shortened(refused)}. '
            'Export with precision="float32", which is faster there.'
        )


def to_float16(builder: Builder) -> int:
    """Convert weights, scales and operators to float16.

    Returns:
        The number of weights and scales that are float16 now.

    Raises:
        ExportError: a weight exceeds the range of float16, or a scale becomes zero. The message names the layers.
    """
    graph = builder.graph
    nodes = list(graph)
    _check(graph)
    dtypes = _infer_dtypes(builder)
    halves = {value: _cast_input(builder, value) for value in list(graph.inputs) if value.dtype == _FLOAT}
    converted = sum(_convert_constant(builder, value) for value in list(graph.initializers.values()))
    for node in nodes:
        _convert_attributes(node)
        for index, value in enumerate(node.inputs):
            if value is None or dtypes.get(value) != _FLOAT:
                continue
            if _takes_half(builder, node, index):
                node.replace_input_with(index, halves.get(value, value))
            elif value not in graph.inputs and not value.is_initializer():  # inputs and initializers are float32 here
                cast = _cast(builder, halves.get(value, value), _FLOAT, f"{node.name}/Cast", before=node)
                node.replace_input_with(index, cast)
        for index, value in enumerate(node.outputs):
            if dtypes.get(value) != _FLOAT:
                continue
            if _makes_half(builder, node, index):
                if value.dtype is not None:
                    value.type = ir.TensorType(_HALF)
            else:
                halves[value] = _cast(builder, value, _HALF, f"{node.name}/Cast", after=node)
    for index, value in enumerate(graph.outputs):
        if dtypes.get(value) == _FLOAT and value not in halves:
            graph.outputs[index] = _cast(builder, value, _FLOAT, f"{value.name}/Cast", after=graph[-1])
    return converted


def _infer_dtypes(builder: Builder) -> dict[ir.Value, ir.DataType]:
    """The dtype of each tensor before the conversion, as far as the schemas of the operators determine it."""
    dtypes = {v: v.dtype for v in (*builder.graph.inputs, *builder.graph.initializers.values()) if v.dtype is not None}
    for node in builder.graph:
        schema = onnx.defs.get_schema(node.op_type, builder.opset, node.domain)
        known = {}
        for index, value in enumerate(node.inputs):
            if value in dtypes:
                known[schema.inputs[min(index, len(schema.inputs) - 1)].type_str] = dtypes[value]
        to = attribute(node, "to")
        for index, value in enumerate(node.outputs):
            parameter = schema.outputs[min(index, len(schema.outputs) - 1)]
            if value.dtype is not None:
                dtypes[value] = value.dtype
            elif to is not None:
                dtypes[value] = ir.DataType(to)
            elif parameter.type_str in known:
                dtypes[value] = known[parameter.type_str]
            elif node.op_type == "ConstantOfShape":
                fill = attribute(node, "value")
                dtypes[value] = _FLOAT if fill is None else fill.dtype
            elif parameter.type_str == "tensor(float)":
                dtypes[value] = _FLOAT
    return dtypes


def _layer(node: ir.Node) -> str:
    """The layer that a node belongs to, from the node's name; the operator if it has no name."""
    return layer_of(node) or node.op_type


def _check(graph: ir.Graph) -> None:
    problems = []
    for value in graph.initializers.values():
        numbers, nodes = constant(value), readers(value)
        if numbers is None or numbers.dtype != np.float32 or not nodes:
            continue
        finite = numbers[np.isfinite(numbers)]
        largest = float(np.abs(finite).max(initial=0))
        if largest > _LARGEST and not all(node.op_type in _LIMITS for node in nodes):
            problems.append(f"  {_layer(nodes[0])}: {value.name} has values up to {largest:.3g}")
        quantizers = [use.node for use in value.uses() if use.node.op_type in _QUANTIZERS and use.idx == 1]
        scales = [node for node in quantizers if not _is_bias(node)]
        if scales and float(np.abs(numbers).min()) <= _SMALLEST / 2:
            problems.append(f"  {_layer(scales[0])}: {value.name}, a scale of {float(numbers.min()):.3g}, becomes zero")
    if problems:
        raise ExportError(
            f'precision="float16" cannot hold these numbers: float16 has absolute values from {_SMALLEST:.1g} to '
            f"{_LARGEST:.0f}.\n" + "\n".join(problems) + '\nExport with precision="float32", or scale the layers.'
        )


def _convert_constant(builder: Builder, value: ir.Value) -> bool:
    """Convert a constant to float16, with a float32 copy for nodes that need it; return whether it was converted."""
    numbers = constant(value)
    if numbers is None or numbers.dtype != np.float32:
        return False
    uses = list(value.uses())
    keeping = [use for use in uses if not _takes_half(builder, use.node, use.idx)]
    if keeping and len(keeping) == len(uses):
        return False
    if keeping:
        copy = builder.initializer(value.name or "constant", numbers)
        for use in keeping:
            use.node.replace_input_with(use.idx, copy)
    limited = np.where(np.isfinite(numbers), np.clip(numbers, -_LARGEST, _LARGEST), numbers)
    half = limited.astype(np.float16)
    if numbers.size == 1 and numbers.any() and not half.any():
        half = np.copysign(np.full_like(half, _SMALLEST), half)  # an epsilon must not become 0
    value.const_value = ir.Tensor(half, name=value.name)
    value.type = ir.TensorType(_HALF)
    return True


def _convert_attributes(node: ir.Node) -> None:
    for name in ("to", "dtype"):
        if attribute(node, name) == _FLOAT.value:
            node.attributes[name] = ir.AttrInt64(name, _HALF.value)
    if node.op_type == "ConstantOfShape":
        filled = attribute(node, "value")
        if filled is not None and filled.dtype == _FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(filled.numpy().astype(np.float16)))


def _cast_input(builder: Builder, value: ir.Value) -> ir.Value:
    """A float32 input of the graph as float16."""
    return _cast(builder, value, _HALF, f"{value.name}/Cast", before=builder.graph[0])


def _cast(
    builder: Builder,
    value: ir.Value,
    dtype: ir.DataType,
    name: str,
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    cast = builder.insert("Cast", [value], {"to": dtype.value}, before=before, after=after, name=name, like=value)
    cast.type = ir.TensorType(dtype)
    return cast


def _takes_half(builder: Builder, node: ir.Node, index: int) -> bool:
    return not _is_bias(node) and _allowed(list(_parameters(builder, node, outputs=False)), index)


def _makes_half(builder: Builder, node: ir.Node, index: int) -> bool:
    return not _is_bias(node) and _allowed(list(_parameters(builder, node, outputs=True)), index)


def _is_bias(node: ir.Node) -> bool:
    """Whether it dequantizes a bias; input scale times weight scale may be too small for float16."""
    integers = constant(operand(node, 0)) if node.op_type == "DequantizeLinear" else None
    return integers is not None and integers.dtype == np.int32


def _parameters(builder: Builder, node: ir.Node, outputs: bool) -> Iterator[onnx.defs.OpSchema.FormalParameter]:
    schema = onnx.defs.get_schema(node.op_type, builder.opset, node.domain)
    yield from schema.outputs if outputs else schema.inputs


def _allowed(parameters: list[onnx.defs.OpSchema.FormalParameter], index: int) -> bool:
    # The last parameter may be variadic.
    parameter = parameters[min(index, len(parameters) - 1)]
    return "tensor(float16)" in parameter.types or "tensor(float)" not in parameter.types
