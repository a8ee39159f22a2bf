"""`QdqGraph`: an ONNX graph as the rules see it: quantizers, what they feed, and what follows a node."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir, with_shapes
from tensorflow_quantization.onnx_graph.operators import BIASES, CARRYING, FACTORS
from tensorflow_quantization.onnx_graph.queries import (
    is_constant,
    is_dequantize,
    is_quantize,
    operand,
    producer,
)


@dataclass(frozen=True)
class Source:
    """Where an input comes from.

    Attributes:
        dequantize: the DequantizeLinear it comes from; `None`: it is not quantized.
        passed: the operators between that and the node, nearest to the node first.
        is_weight: the numbers are constant.
    """

    dequantize: ir.Node | None
    passed: tuple[ir.Node, ...]
    is_weight: bool

    @property
    def quantize(self) -> ir.Node | None:
        """The QuantizeLinear before the DequantizeLinear, where the graph has one."""
        found = producer(operand(self.dequantize, 0))
        return found if is_quantize(found) else None


@dataclass(frozen=True)
class WeightedNode:
    """A Conv, ConvTranspose, Gemm or MatMul, with the sources of what it multiplies.

    Attributes:
        node: the operator.
        data, weight: its two factors; of a MatMul of two activations, both are activations.
        bias: the value added, if any.
    """

    node: ir.Node
    data: Source
    weight: Source
    bias: ir.Value | None

    @property
    def quantized(self) -> bool:
        """Both factors come from a DequantizeLinear."""
        return self.data.dequantize is not None and self.weight.dequantize is not None

    @property
    def sources(self) -> tuple[Source, Source]:
        return self.data, self.weight

    @property
    def activations(self) -> list[Source]:
        return [source for source in self.sources if not source.is_weight]

    @property
    def weights(self) -> list[Source]:
        return [source for source in self.sources if source.is_weight]


@dataclass(frozen=True)
class Chain:
    """What follows a value.

    Attributes:
        passed: the operators that follow one another, each the only reader of the one before.
        ends: the readers of the last value; none: it is only a graph output.
        is_output: the last value is a graph output.
    """

    passed: tuple[ir.Node, ...]
    ends: tuple[ir.Node, ...]
    is_output: bool

    @property
    def end(self) -> ir.Node | None:
        """The one reader; `None` where there are several, none, or a graph output."""
        return self.ends[0] if len(self.ends) == 1 and not self.is_output else None


class QdqGraph:
    """Nodes of a model, in order, with the nodes of subgraphs.

    Args:
        model: local functions inlined.
    """

    def __init__(self, model: ir.Model):
        self.model = model
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
        self.nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))

    @classmethod
    def load(cls, path: str | os.PathLike) -> QdqGraph:
        """Read a file.

        Raises:
            FileNotFoundError, ValueError: no such file; not an ONNX model.
        """
        return cls(to_ir(with_shapes(read_onnx(path)), path))

    @cached_property
    def quantizes(self) -> list[ir.Node]:
        return [node for node in self.nodes if is_quantize(node)]

    @cached_property
    def dequantizes(self) -> list[ir.Node]:
        return [node for node in self.nodes if is_dequantize(node)]

    @cached_property
    def weighted(self) -> list[WeightedNode]:
        """All operators of `BIASES` that multiply at run time: not two constants."""
        found = []
        for node in self.nodes:
            if node.domain not in ("", "ai.onnx") or node.op_type not in BIASES:
                continue
            (data, weight), bias = FACTORS[node.op_type], BIASES[node.op_type]
            if not (is_constant(operand(node, data)) and is_constant(operand(node, weight))):
                bias_value = None if bias is None else operand(node, bias)
                found.append(WeightedNode(node, self.source(node, data), self.source(node, weight), bias_value))
        return found

    def source(self, node: ir.Node, index: int, through: Collection[str] = CARRYING) -> Source:
        """Where an input comes from, looking back through operators of these types, and through casts of weights.

        Of what was joined, all has to be quantized; the source is the first.
        """
        value = operand(node, index)
        passed: list[ir.Node] = []
        is_weight = is_constant(value)
        while (before := producer(value)) is not None:
            if is_dequantize(before):
                return Source(before, tuple(passed), is_weight)
            if before.op_type not in through and not (is_weight and before.op_type == "Cast"):
                break
            if before.op_type == "Concat" and any(
                self.source(before, other, through).dequantize is None for other in range(1, len(before.inputs))
            ):
                break
            passed.append(before)
            value = operand(before, 0)
        return Source(None, tuple(passed), is_weight)

    def follow(self, value: ir.Value, through: Collection[str]) -> Chain:
        """What follows a value, through operators of these types for as long as each has one reader."""
        passed: list[ir.Node] = []
        while True:
            readers, is_output = tuple(value.consumers()), value.is_graph_output()
            if is_output or len(readers) != 1 or readers[0].op_type not in through:
                return Chain(tuple(passed), readers, is_output)
            passed.append(readers[0])
            value = readers[0].outputs[0]
