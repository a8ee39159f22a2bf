"""`QdqGraph`: an ONNX graph as the rules see it: quantizers, what they feed, and what follows a node."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.inspection.checks.onnx_file import read_onnx, to_ir, with_shapes

#: Q/DQ pairs also come in ONNX Runtime's own domain, which had 16- and 4-bit ones before ONNX.
_QDQ_DOMAINS = ("", "ai.onnx", "com.microsoft")

#: Operators that multiply an input by weights: their (input, weight, bias) indices; the bias is optional.
WEIGHTED = {"Conv": (0, 1, 2), "ConvTranspose": (0, 1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1, None)}

#: Operators that move values without changing them.
MOVING = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

#: Operators that move values, and join, repeat or choose some of them: integers stay what they are.
CARRYING = MOVING | {"Concat", "DepthToSpace", "MaxPool", "Pad", "Resize", "SpaceToDepth", "Split"}

#: Elementwise functions of one value that follow a layer.
ACTIVATIONS = frozenset(
    {"Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"}
    | {"Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"}
)


def is_quantize(node: ir.Node | None) -> bool:
    """Whether this is a QuantizeLinear."""
    return node is not None and node.op_type == "QuantizeLinear" and node.domain in _QDQ_DOMAINS


def is_dequantize(node: ir.Node | None) -> bool:
    """Whether this is a DequantizeLinear."""
    return node is not None and node.op_type == "DequantizeLinear" and node.domain in _QDQ_DOMAINS


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The numbers of an initializer or a Constant node; `None` for anything else."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initializer or a Constant, or a constant that was only moved, cast or quantized."""
    while value is not None:
        if ir.convenience.get_const_tensor(value) is not None:
            return True
        producer = value.producer()
        follows = is_quantize(producer) or is_dequantize(producer)
        if producer is None or not (follows or producer.op_type in MOVING or producer.op_type == "Cast"):
            return False
        value = input_of(producer, 0)
    return False


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """One input, `None` where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def name_of(node: ir.Node) -> str:
    """The node's name; unnamed ones are called by their output."""
    if node.name:
        return node.name
    outputs = [value.name for value in node.outputs if value.name]
    return f"{node.op_type} of {outputs[0]}" if outputs else node.op_type


@dataclass(frozen=True)
class Quantization:
    """What a QuantizeLinear or DequantizeLinear says.

    Attributes:
        scale: its constants; `None`: computed in the graph.
        zero_point: its constants; `None`: left out, which means 0, or computed.
        dtype: of the integers, "int8", "uint8", "float8e4m3fn", ...; "" where the file does not tell.
        explicit: dtype is written in the node: a zero point or the attribute `output_dtype`.
        axis: of a per-channel scale.
        block_size: 0 but for blockwise scales.
    """

    scale: np.ndarray | None
    zero_point: np.ndarray | None
    dtype: str
    explicit: bool
    axis: int
    block_size: int

    @classmethod
    def of(cls, node: ir.Node) -> Quantization:
        zero_point = input_of(node, 2)
        output_dtype = attribute(node, "output_dtype", 0)
        if zero_point is not None:
            dtype = _dtype(zero_point)
        elif is_quantize(node):
            dtype = ir.DataType(output_dtype).name.lower() if output_dtype else "uint8"
        else:
            dtype = _dtype(node.inputs[0])
            producer = None if node.inputs[0] is None else node.inputs[0].producer()
            if not dtype and producer is not None and is_quantize(producer):
                dtype = cls.of(producer).dtype
        explicit = zero_point is not None or bool(output_dtype) or is_dequantize(node)
        axis, block_size = attribute(node, "axis", 1), attribute(node, "block_size", 0)
        return cls(constant(input_of(node, 1)), constant(zero_point), dtype, explicit, axis, block_size)

    @property
    def per_channel(self) -> bool:
        return self.scale is not None and self.scale.size > 1

    @property
    def zero(self) -> int | None:
        """The zero point of a per-tensor quantizer, 0 where left out, `None` where it varies."""
        if self.zero_point is None:
            return 0
        values = np.unique(self.zero_point.astype(np.int64))
        return int(values[0]) if len(values) == 1 else None

    @property
    def limits(self) -> tuple[int, int] | None:
        """The least and greatest integer, `None` for dtypes that are not integers."""
        signed, _, digits = self.dtype.partition("int")
        if not digits.isdigit() or signed not in ("", "u"):
            return None
        bits = int(digits)
        return (0, 2**bits - 1) if signed == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _dtype(value: ir.Value | None) -> str:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    dtype = tensor.dtype if tensor is not None else (None if value is None else value.dtype)
    return "" if dtype is None else dtype.name.lower()


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
        value = None if self.dequantize is None else self.dequantize.inputs[0]
        producer = None if value is None else value.producer()
        return producer if is_quantize(producer) else None


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
    """Nodes of a model, in order, those of subgraphs too.

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
        """All operators of `WEIGHTED` that multiply at run time: not those of two constants."""
        found = []
        for node in self.nodes:
            if node.domain not in ("", "ai.onnx") or node.op_type not in WEIGHTED:
                continue
            data, weight, bias = WEIGHTED[node.op_type]
            if not (is_constant(input_of(node, data)) and is_constant(input_of(node, weight))):
                bias_value = None if bias is None else input_of(node, bias)
                found.append(WeightedNode(node, self.source(node, data), self.source(node, weight), bias_value))
        return found

    def source(self, node: ir.Node, index: int, through: Collection[str] = CARRYING) -> Source:
        """Where an input comes from, looking back through operators of these types, and through casts of weights.

        Of what was joined, all has to be quantized; the source is the first.
        """
        value = input_of(node, index)
        passed: list[ir.Node] = []
        is_weight = is_constant(value)
        while value is not None and (producer := value.producer()) is not None:
            if is_dequantize(producer):
                return Source(producer, tuple(passed), is_weight)
            if producer.op_type not in through and not (is_weight and producer.op_type == "Cast"):
                break
            if producer.op_type == "Concat" and any(
                self.source(producer, other, through).dequantize is None for other in range(1, len(producer.inputs))
            ):
                break
            passed.append(producer)
            value = input_of(producer, 0)
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
