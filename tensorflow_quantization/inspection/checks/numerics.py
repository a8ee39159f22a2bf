"""Predicates about scales, zero points, dtypes, axes, operators and the opset. Each yields `Violation`s."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import onnx
import onnx_ir as ir

from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph, WeightedNode
from tensorflow_quantization.inspection.checks.rule import Predicate, Violation
from tensorflow_quantization.onnx_graph.operators import BIASES, RELAYING
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import (
    constant,
    is_constant,
    is_dequantize,
    is_quantize,
    name_of,
    operand,
    output_axis,
    producer,
)


def _deciding(graph: QdqGraph) -> Iterator[ir.Node]:
    """One node of each Q/DQ pair: the QuantizeLinear, or the DequantizeLinear of stored integers."""
    for node in graph.nodes:
        if is_quantize(node) or (is_dequantize(node) and not is_quantize(producer(operand(node, 0)))):
            yield node


def bad_scales(graph: QdqGraph) -> Iterator[Violation]:
    """Quantizers whose scale is computed in the graph, zero, negative or not finite."""
    for node in _deciding(graph):
        scale = constant(operand(node, 1))
        if scale is None:
            if not is_constant(operand(node, 1)):
                yield Violation((node,), "its scale is computed in the graph, not a constant")
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            bad = scale[~(np.isfinite(scale) & (scale > 0))].ravel()[0]
            yield Violation((node,), f"its scale holds {float(bad):g}")


def mismatched_pairs(graph: QdqGraph) -> Iterator[Violation]:
    """Pairs whose QuantizeLinear and DequantizeLinear differ in scale, zero point or dtype."""
    return _mismatches(graph, lambda quantize: False)


def mismatched_pairs_within(graph: QdqGraph) -> Iterator[Violation]:
    """The same, except for the scale of a pair at a model input.

    The export for ONNX Runtime divides the scale of its QuantizeLinear by the factor of a Rescaling layer.
    """
    return _mismatches(graph, _of_input)


def _mismatches(graph: QdqGraph, has_any_scale: Callable[[ir.Node], bool]) -> Iterator[Violation]:
    for node in graph.dequantizes:
        before = producer(operand(node, 0))
        if before is None or not is_quantize(before):
            continue
        q, dq = Quantization.of(before), Quantization.of(node)
        if q.dtype != dq.dtype:
            yield Violation((node, before), f"they have different dtypes, {q.dtype} and {dq.dtype}")
        for what, left, right in (("scale", q.scale, dq.scale), ("zero point", q.zero_point, dq.zero_point)):
            if what == "scale" and has_any_scale(before):
                continue
            # An omitted zero point is 0.
            left, right = (np.zeros(1) if x is None and what == "zero point" else x for x in (left, right))
            if left is not None and right is not None and not _same(left, right):
                yield Violation((node, before), f"they have different {what}s")


def _of_input(quantize: ir.Node) -> bool:
    value = operand(quantize, 0)
    while (relaying := producer(value, *RELAYING)) is not None:
        value = operand(relaying, 0)
    return value is not None and value.is_graph_input()


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    left, right = np.broadcast_arrays(left, right) if 1 in (left.size, right.size) else (left, right)
    return left.shape == right.shape and bool((left.astype(np.float64) == right.astype(np.float64)).all())


def implicit_dtypes(graph: QdqGraph) -> Iterator[Violation]:
    """QuantizeLinear nodes without a zero point or dtype, which quantize to uint8."""
    for node in graph.quantizes:
        if not Quantization.of(node).explicit:
            yield Violation((node,), "it has no zero point, and without one ONNX quantizes to uint8")


def dtypes_other_than(allowed: Collection[str]) -> Predicate:
    """Quantizers whose dtype is not in `allowed`; int32 biases and omitted dtypes belong to other rules."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in _deciding(graph):
            q = Quantization.of(node)
            if q.explicit and q.dtype and q.dtype not in (*allowed, "int32"):
                yield Violation((node,), f"its integers are {q.dtype}")

    return find


def factors_other_than(allowed: Collection[str], *, weights: bool) -> Predicate:
    """Weighted operators whose quantized weights, or activations, have a dtype that is not in `allowed`.

    Weights in blocks with a float input are left out: runtimes expand them.
    """

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for weighted in graph.weighted:
            if weighted.weight_only:
                continue
            for source in weighted.weights if weights else weighted.activations:
                dtype = "" if source.dequantize is None else Quantization.of(source.dequantize).dtype
                if dtype and dtype not in allowed:
                    what = "weights" if weights else "input"
                    yield Violation((weighted.node, source.dequantize), f"its {what} is quantized to {dtype}")

    return find


def scales_other_than(allowed: Collection[str]) -> Predicate:
    """Weighted operators with a scale, and so dequantized values, of a dtype that is not in `allowed`."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for weighted in graph.weighted:
            for source in weighted.sources:
                scale = None if source.dequantize is None else Quantization.of(source.dequantize).scale
                if scale is not None and scale.dtype.name not in allowed:
                    yield Violation((weighted.node, source.dequantize), f"its scale is {scale.dtype.name}")
                    break

    return find


def nonzero_zero_points(graph: QdqGraph) -> Iterator[Violation]:
    """Quantizers with a zero point that is not 0."""
    for node in _deciding(graph):
        zero_point = Quantization.of(node).zero_point
        if zero_point is not None and zero_point.astype(np.float64).any():
            value = zero_point.ravel()[zero_point.astype(np.float64).ravel() != 0][0]
            yield Violation((node,), f"its zero point is {int(value)}")


def per_channel_activations(graph: QdqGraph) -> Iterator[Violation]:
    """Weighted operators that read an activation that is quantized per channel."""
    for weighted in graph.weighted:
        for source in weighted.activations:
            if source.dequantize is not None and Quantization.of(source.dequantize).per_channel:
                what = f"its input is quantized per channel, along axis {Quantization.of(source.dequantize).axis}"
                yield Violation((weighted.node, source.dequantize), what)


def wrong_axes(operators: Collection[str] = tuple(BIASES)) -> Predicate:
    """Per-channel weights of these operators whose scales do not lie along the output channels."""
    return lambda graph: _wrong_axes(graph, frozenset(operators))


def _wrong_axes(graph: QdqGraph, operators: frozenset[str]) -> Iterator[Violation]:
    for weighted in graph.weighted:
        for source in weighted.weights if weighted.node.op_type in operators else ():
            if source.dequantize is None or source.passed:
                continue
            q, shape = Quantization.of(source.dequantize), _shape(source.dequantize.inputs[0])
            if not q.per_channel or q.block_size or q.scale is None or not shape:
                continue
            axis, expected = q.axis % len(shape), _channel_axis(weighted, len(shape))
            if axis != expected:
                what = f"the weights' scales lie along axis {axis}; its output channels are axis {expected}"
                yield Violation((weighted.node, source.dequantize), what)
            elif q.scale.size != shape[axis]:
                what = f"the weights have {q.scale.size} scales for {shape[axis]} channels"
                yield Violation((weighted.node, source.dequantize), what)


def _channel_axis(weighted: WeightedNode, rank: int) -> int | None:
    """The axis of the output channels in the weight; the weight of a MatMul may be its first factor."""
    if weighted.node.op_type == "MatMul" and weighted.data.is_weight:
        return rank - 2
    return output_axis(weighted.node, rank)


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    shape = value.shape if tensor is None else tensor.shape
    return None if shape is None or not all(isinstance(d, int) for d in shape) else tuple(int(d) for d in shape)


#: The opset of ONNX that a feature needs, the feature, and whether a quantizer uses it; the newest first.
_NEEDS = (
    (23, "4-bit floats", lambda q: q.dtype == "float4e2m1"),
    (21, "4- and 16-bit integers", lambda q: q.dtype in ("int4", "uint4", "int16", "uint16")),
    (21, "blocks", lambda q: q.block_size > 0),
    (19, "8-bit floats", lambda q: q.dtype.startswith("float8")),
    (19, "float16 scales", lambda q: q.scale is not None and q.scale.dtype.name in ("float16", "bfloat16")),
    (13, "per-channel scales", lambda q: q.per_channel),
    (10, "QuantizeLinear", lambda q: True),
)


def opset_too_old(graph: QdqGraph) -> Iterator[Violation]:
    """Quantizers that need a newer opset than the file has; nodes of ONNX Runtime's domain do not depend on it."""
    for opset, what, needs in _NEEDS:
        nodes = tuple(
            node
            for node in (*graph.quantizes, *graph.dequantizes)
            if node.domain != "com.microsoft" and graph.opset < opset and needs(Quantization.of(node))
        )
        if nodes:
            yield Violation(nodes, f"{what} came with opset {opset}; the file has {graph.opset}")


def unknown_operators(domains: Collection[str]) -> Predicate:
    """Operators of domains other than ONNX' own and `domains`, and operators that ONNX does not have."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if node.domain not in ("", "ai.onnx", *domains):
                yield Violation((node,), f"{node.op_type} is in the domain {node.domain!r}")
            elif node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
                yield Violation((node,), f"ONNX has no operator {node.op_type}")

    return find


def operators(names: Collection[str]) -> Predicate:
    """Nodes of these types."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if node.op_type in names:
                yield Violation((node,), f"it is a {node.op_type}")

    return find


def values_other_than(refused: Collection[str], only_cast: Collection[str]) -> Predicate:
    """Operators that read a tensor of a refused dtype, or of one in `only_cast` and are no Cast; quantizers aside."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if is_quantize(node) or is_dequantize(node):
                continue
            for value in node.inputs:
                dtype = value.dtype.name.lower() if value is not None and value.dtype is not None else ""
                if dtype in refused or (dtype in only_cast and node.op_type != "Cast"):
                    yield Violation((node,), f"it reads {value.name!r}, which is {dtype}")
                    break

    return find


def quantized_operators(names: Collection[str]) -> Predicate:
    """Quantized weighted operators of these types."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for weighted in graph.weighted:
            if weighted.node.op_type in names and weighted.quantized:
                yield Violation((weighted.node,), f"it is a {weighted.node.op_type}")

    return find


def odd_blocks(sizes: Collection[int]) -> Predicate:
    """INT4 weights with a block size that is not in `sizes`."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.dequantizes:
            q = Quantization.of(node)
            if q.dtype == "int4" and q.block_size and q.block_size not in sizes:
                yield Violation((node,), f"its blocks hold {q.block_size} values")

    return find


def one_scale_of_int4(graph: QdqGraph) -> Iterator[Violation]:
    """INT4 weights that have one scale for all inputs of a channel, without blocks or in a single one."""
    for node in graph.dequantizes:
        q = Quantization.of(node)
        if q.dtype != "int4" or (q.block_size and q.scale is not None and q.scale.shape[q.axis] > 1):
            continue
        yield Violation((node,), f"its one block holds {q.block_size} values" if q.block_size else "it has no blocks")


def weights_with_offset(graph: QdqGraph) -> Iterator[Violation]:
    """Weighted operators whose weights are unsigned or have a zero point."""
    for weighted in graph.weighted:
        for source in weighted.weights:
            q = None if source.dequantize is None else Quantization.of(source.dequantize)
            if q is not None and (q.dtype == "uint8" or q.zero != 0):
                zero = "several zero points" if q.zero is None else f"zero point {q.zero}"
                yield Violation((weighted.node, source.dequantize), f"its weights are {q.dtype} with {zero}")


def bias_off_scale(operators: Collection[str]) -> Predicate:
    """Integer biases of these operators whose scale is not input scale times weight scale."""
    return lambda graph: _bias_off_scale(graph, frozenset(operators))


def _bias_off_scale(graph: QdqGraph, operators: frozenset[str]) -> Iterator[Violation]:
    for weighted in graph.weighted:
        dequantize = producer(weighted.bias)
        if weighted.node.op_type not in operators or not weighted.quantized or not is_dequantize(dequantize):
            continue
        scales = [Quantization.of(s.dequantize).scale for s in weighted.sources if s.dequantize is not None]
        left, right, bias = *scales, Quantization.of(dequantize).scale
        if bias is not None and left is not None and right is not None:
            product = np.ravel(left) * np.ravel(right)
            if bias.size not in (1, product.size) or not np.allclose(np.ravel(bias), product, rtol=1e-3):
                what = f"the scale of the bias of {name_of(weighted.node)} is not input scale times weight scale"
                yield Violation((weighted.node, dequantize), what)
