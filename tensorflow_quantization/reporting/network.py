"""`Network`: the nodes and tensors that the report draws, of a file or of a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from tensorflow_quantization.inspection import LayerDescription, ModelDescription
from tensorflow_quantization.inspection.runtime import KernelReport, NodeReport, RuntimeReport
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import (
    is_constant,
    is_dequantize,
    is_quantize,
    layer_of,
    moves_only,
    name_of,
    operand,
    shape_of,
)
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets.reason import ReasonCode
from tensorflow_quantization.text.tables import count_text
from tensorflow_quantization.wrappers import float_path

#: How a node computes, and how a tensor is stored: "" for what is neither, or not known.
INTEGER, FLOAT, OTHER = "integer", "float", ""

#: Reasons without a quantizer of the layer's own, for layers that are computed in integers.
_INTEGER_REASONS = (ReasonCode.FUSED, ReasonCode.SHARES_QUANTIZER, ReasonCode.MOVES_DATA)


@dataclass
class Node:
    """A node of the drawing.

    Attributes:
        name: of the node in the file, or the path of the layer.
        kind: the operator, or the class of the layer.
        ran: `INTEGER`, `FLOAT` or `OTHER`.
        layer: the path of its layer in the float model.
        facts: what is known of it, as pairs of a title and a text.
    """

    name: str
    kind: str
    ran: str = OTHER
    layer: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Edge:
    """A tensor that a node reads.

    Attributes:
        source, target: indices of nodes.
        ran: `INTEGER`, `FLOAT` or `OTHER`.
        label: its dtype and shape.
    """

    source: int
    target: int
    ran: str
    label: str


@dataclass
class Network:
    """The nodes in topological order, and the tensors between them.

    Attributes:
        nodes, edges: see `Node` and `Edge`.
        says: what the colours say, a sentence.
        drawn_as: for a layer without a node of its own, the layer that it is part of, by paths in the float model.
    """

    nodes: list[Node]
    edges: list[Edge]
    says: str
    drawn_as: dict[str, str] = field(default_factory=dict)

    def find_layers(self, graph: LayerGraph) -> None:
        """Sets `drawn_as` for the layers of a Keras model: one without a node is part of the layer it reads."""
        drawn = {node.layer for node in self.nodes}
        for call in graph.calls:
            path, before = float_path(call.path), call.inputs[0] if call.inputs else None
            if path not in drawn and before is not None:
                source = before.name if before.producer is None else float_path(before.producer.path)
                self.drawn_as[path] = self.drawn_as.get(source, source)


def network_of_file(model: ir.Model, report: RuntimeReport | None) -> Network:
    """Returns the network in a file. Quantizers are drawn as the dtypes of tensors; constants are left out.

    Args:
        model: the file, with the shapes of tensors.
        report: what its runtime executes; `None`: nodes have no colour, tensors have the colour of their quantizers.
    """
    reports = {node.name: node for node in report} if report is not None else {}
    kernels = _kernels(report)
    nodes: list[Node] = []
    index_of: dict[int, int] = {}  # by the id of a value
    edges: list[Edge] = []
    for value in model.graph.inputs:
        if not is_constant(value):
            index_of[id(value)] = len(nodes)
            name = value.name or ""
            nodes.append(Node(name, "Input", layer=name, facts=[("shape", _shape(shape_of(value)))]))
    for node in model.graph:
        name = name_of(node)
        found = reports.get(name)
        if is_quantize(node) or is_dequantize(node) or all(is_constant(v) for v in node.inputs):
            continue
        if found is not None and found.ran == "folded":
            continue
        drawn = _drawn(node, found, kernels.get(name))
        read = [(value, *_before_quantizers(value)) for value in dict.fromkeys(v for v in node.inputs if v is not None)]
        read = [(value, before, quantized) for value, before, quantized in read if id(before) in index_of]
        # A fused node without a kernel is part of the kernel before it, which the runtime does not name after it.
        fused = found is not None and found.ran == "fused"
        if fused and not drawn.ran and read:
            drawn.ran = nodes[index_of[id(read[0][1])]].ran
        for value, before, quantized in read:
            source = index_of[id(before)]
            passes_on = fused or moves_only(node) or moves_only(before.producer())
            ran = _tensor(nodes[source].ran, drawn.ran, quantized, passes_on, report is not None)
            edges.append(Edge(source, len(nodes), ran, _label(value, quantized)))
        index_of.update({id(value): len(nodes) for value in node.outputs})
        nodes.append(drawn)
    if report is None:
        return Network(
            nodes, edges, "Colours of tensors: what the file quantizes. No runtime was asked what it executes."
        )
    return Network(nodes, edges, f"Colours: what {report.runtime} executes.")


def network_of_model(graph: LayerGraph, description: ModelDescription) -> Network:
    """Returns the network of a Keras model: what is meant to run in integers."""
    described = {layer.name: layer for layer in description}
    nodes: list[Node] = []
    index_of: dict[int, int] = {}  # by the id of a tensor
    bits: dict[int, str] = {}
    edges: list[Edge] = []
    for tensor in graph.inputs:
        index_of[id(tensor)] = len(nodes)
        nodes.append(Node(tensor.name, "Input", layer=tensor.name, facts=[("shape", _shape(tensor.shape))]))
    for call in graph.calls:
        layer = described.get(call.path)
        if isinstance(call.operation, ActivationQuantizer):
            if call.inputs and id(call.inputs[0]) in index_of:  # drawn as the dtype of its tensor
                index_of[id(call.outputs[0])] = index_of[id(call.inputs[0])]
                scheme = call.operation.scheme
                bits[id(call.outputs[0])] = scheme.name if scheme.floating else f"{scheme.bits}-bit integers"
            continue
        drawn = _drawn_layer(call.path, call.class_name, layer)
        for tensor in dict.fromkeys(call.inputs):
            if id(tensor) in index_of:
                source = index_of[id(tensor)]
                integer = id(tensor) in bits or nodes[source].ran == drawn.ran == INTEGER
                ran = INTEGER if integer else _float_or_other(tensor.dtype)
                dtype = bits.get(id(tensor), "quantized" if integer else tensor.dtype)
                edges.append(Edge(source, len(nodes), ran, f"{dtype} {_shape(tensor.shape)}"))
        index_of.update({id(tensor): len(nodes) for tensor in call.outputs})
        nodes.append(drawn)
    return Network(nodes, edges, "Colours: what the Keras model quantizes. No file was given, so no runtime was asked.")


def _kernels(report: RuntimeReport | None) -> dict[str, KernelReport]:
    """The kernel that executes each node, by the name of the node."""
    return {name: kernel for kernel in (report.executed if report is not None else []) for name in kernel.nodes}


def _drawn(node: ir.Node, report: NodeReport | None, kernel: KernelReport | None) -> Node:
    drawn = Node(name_of(node), node.op_type, layer=float_path(layer_of(node)))
    output = node.outputs[0] if node.outputs else None
    facts = [("output", _shape(shape_of(output)))]
    if report is not None:
        ran = report.ran
        if ran == "fused" and kernel is not None and kernel.integer is not None:
            drawn.ran = INTEGER if kernel.integer else FLOAT
        elif ran in (INTEGER, FLOAT):
            drawn.ran = ran
        executed = report.kernel or (f"part of {kernel.type}" if kernel is not None else "part of the kernel before it")
        facts += [("runs as", executed), ("why not in integers", report.reason), ("what to do", report.fix)]
        facts += [("MACs", count_text(report.macs))] if report.macs else []
    drawn.facts = [fact for fact in facts if fact[1]]
    return drawn


def _drawn_layer(path: str, class_name: str, layer: LayerDescription | None) -> Node:
    drawn = Node(path, class_name if layer is None else layer.class_name, layer=float_path(path))
    if layer is not None:
        integer = layer.code in _INTEGER_REASONS or (
            layer.quantized and layer.code is not ReasonCode.FLOAT_READ_IN_INTEGERS
        )
        drawn.ran = INTEGER if integer else FLOAT
    return drawn


def _before_quantizers(value: ir.Value) -> tuple[ir.Value, str]:
    """The value that quantizers compute `value` from, and the dtype of the integers; "" if there are none."""
    dtype = ""
    while (node := value.producer()) is not None and (is_quantize(node) or is_dequantize(node)):
        dtype = dtype or Quantization.of(node).dtype
        before = operand(node, 0)
        if before is None:
            break
        value = before
    return value, dtype


def _tensor(source: str, target: str, quantized: str, passes_on: bool, known: bool) -> str:
    """How a tensor is stored.

    Args:
        source, target: how the nodes ran.
        quantized: the dtype of its integers in the file, if it has quantizers.
        passes_on: whether its reader is fused, or one of its nodes only moves values.
        known: whether it is known how nodes ran.
    """
    if quantized:
        return INTEGER if INTEGER in (source, target) or not known else FLOAT
    if passes_on and source == target:
        return source
    return FLOAT if known else OTHER


def _label(value: ir.Value, quantized: str) -> str:
    dtype = quantized or (value.dtype.name.lower() if value.dtype is not None else "")
    return f"{dtype} {_shape(shape_of(value))}".strip()


def _float_or_other(dtype: str) -> str:
    return FLOAT if "float" in dtype else OTHER


def _shape(shape: Sequence[int | None] | None) -> str:
    return "" if shape is None else " × ".join("?" if size is None else str(size) for size in shape)
