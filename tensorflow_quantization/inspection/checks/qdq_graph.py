"""`QdqGraph`: what the rules ask of an ONNX graph: its quantizers, and what lies between them and operators."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir, with_shapes
from tensorflow_quantization.onnx_graph.operators import BIASES, CARRYING, FACTORS
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    is_constant,
    is_dequantize,
    is_quantize,
    operand,
    producer,
)


@dataclass(frozen=True)
class Source:
    """The origin of an input of a node.

    Attributes:
        dequantize: the DequantizeLinear that it comes from; `None`: it is not quantized.
        passed: the operators between the DequantizeLinear and the node, first the nearest to the node.
        is_weight: whether its values are constant.
    """

    dequantize: ir.Node | None
    passed: tuple[ir.Node, ...]
    is_weight: bool

    @property
    def quantize(self) -> ir.Node | None:
        """The QuantizeLinear before the DequantizeLinear; `None` if there is none."""
        found = producer(operand(self.dequantize, 0))
        return found if is_quantize(found) else None

    @property
    def in_blocks(self) -> bool:
        """Whether it is a weight with one scale for each block of inputs."""
        return self.is_weight and self.dequantize is not None and bool(attribute(self.dequantize, "block_size", 0))


@dataclass(frozen=True)
class WeightedNode:
    """A Conv, ConvTranspose, Gemm or MatMul, with the sources of its two factors.

    Attributes:
        node: the operator.
        data: the source of the first factor.
        weight: the source of the second factor; in a MatMul, it may be an activation, and the first factor a weight.
        bias: the bias; `None` if there is none.
    """

    node: ir.Node
    data: Source
    weight: Source
    bias: ir.Value | None

    @property
    def quantized(self) -> bool:
        """Whether both factors come from a DequantizeLinear."""
        return self.data.dequantize is not None and self.weight.dequantize is not None

    @property
    def weight_only(self) -> bool:
        """Whether its weights have blocks and its input is float: a runtime multiplies in float, as is intended."""
        return self.weight.in_blocks and self.data.dequantize is None

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
    """The operators that follow a value.

    Attributes:
        passed: operators in sequence, each the only reader of the operator before it.
        ends: the readers of the last value; empty if it is only a graph output.
        is_output: whether the last value is a graph output.
    """

    passed: tuple[ir.Node, ...]
    ends: tuple[ir.Node, ...]
    is_output: bool

    @property
    def end(self) -> ir.Node | None:
        """The only reader of the last value; `None` if it has none or several, or is a graph output."""
        return self.ends[0] if len(self.ends) == 1 and not self.is_output else None


class QdqGraph:
    """The nodes of a model in order, with the nodes of subgraphs.

    Args:
        model: a model whose local functions are inlined.
    """

    def __init__(self, model: ir.Model):
        self.model = model
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
        self.nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))

    @classmethod
    def load(cls, path: str | os.PathLike) -> QdqGraph:
        """The graph in a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not an ONNX model.
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
        """All operators of `BIASES`, except products of two constants, which are not computed at run time."""
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
        """The source of an input of `node`, looking back through operators of these types and through casts of weights.

        A Concat has a quantized source only if all its inputs are quantized; the source of its first input is returned.
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
        """The operators of these types that follow `value`, as long as each output has one reader."""
        passed: list[ir.Node] = []
        while True:
            readers, is_output = tuple(value.consumers()), value.is_graph_output()
            if is_output or len(readers) != 1 or readers[0].op_type not in through:
                return Chain(tuple(passed), readers, is_output)
            passed.append(readers[0])
            value = readers[0].outputs[0]
