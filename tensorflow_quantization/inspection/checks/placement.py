"""Predicates about placement: which operators lie between quantizers. Each yields `Violation`s."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph, Source
from tensorflow_quantization.inspection.checks.rule import Predicate, Violation
from tensorflow_quantization.onnx_graph.float_weights import float_weights as find_float_weights
from tensorflow_quantization.onnx_graph.operators import CARRYING, MOVING
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    is_constant,
    is_dequantize,
    is_quantize,
    layer_of,
    name_of,
    operand,
    producer,
)


def nothing_quantized(graph: QdqGraph) -> Iterator[Violation]:
    """The file, if it has no quantizer."""
    if not graph.quantizes and not graph.dequantizes:
        yield Violation((), "it has no QuantizeLinear")


def left_in_float(graph: QdqGraph) -> Iterator[Violation]:
    """Weighted operators without a quantizer on either factor."""
    for weighted in graph.weighted:
        if weighted.data.dequantize is None and weighted.weight.dequantize is None:
            yield Violation((weighted.node,), f"neither factor of this {weighted.node.op_type} is quantized")


def weights_in_blocks(graph: QdqGraph) -> Iterator[Violation]:
    """Weighted operators with weights in blocks and a float input."""
    for weighted in graph.weighted:
        if weighted.weight_only:
            found = Quantization.of(weighted.weight.dequantize)
            what = f"its weights are {found.dtype} in blocks of {found.block_size}, and its input is float"
            yield Violation((weighted.node, weighted.weight.dequantize), what)


def _halves(graph: QdqGraph, through: Collection[str] = ()) -> Iterator[tuple[bool, Violation]]:
    """Weighted operators with a quantizer on one factor only, and whether the other factor is a weight.

    Those whose weights have blocks multiply in float by intention, and are left out.
    """
    through = CARRYING | frozenset(through)
    for weighted in graph.weighted:
        if weighted.weight_only:
            continue
        for index, source in enumerate(weighted.sources):
            other = weighted.sources[1 - index]
            if other.dequantize is not None and graph.source(weighted.node, index, through).dequantize is None:
                what = "weights are" if source.is_weight else "input is"
                rest = "" if source.is_weight else _origin(weighted.node, index)
                yield source.is_weight, Violation((weighted.node, other.dequantize), f"its {what} not quantized{rest}")


def half_quantized(through: Collection[str] = (), weight_only: Collection[str] = ()) -> Predicate:
    """Weighted operators with a quantizer on one factor only.

    Args:
        through: operators, besides `CARRYING`, that may lie between a DequantizeLinear and the weighted operator.
        weight_only: dtypes of weights that the runtime multiplies by float inputs.
    """

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for constant, violation in _halves(graph, through):
            if constant or Quantization.of(violation.nodes[1]).dtype not in weight_only:
                yield violation

    return find


def float_weights(graph: QdqGraph) -> Iterator[Violation]:
    """Operators with float weights between integers, which ONNX Runtime would quantize."""
    for node in find_float_weights(graph.nodes):
        yield Violation((node,), "its weights are not quantized")


def float_inputs(graph: QdqGraph) -> Iterator[Violation]:
    """Weighted operators with a float input whose other factor is quantized."""
    return (violation for constant, violation in _halves(graph) if not constant)


def _origin(node: ir.Node, index: int) -> str:
    before = producer(operand(node, index))
    return "" if before is None else f": it comes from {before.op_type} {name_of(before)!r}"


def weights_not_adjacent(allowed: Collection[str] = ()) -> Predicate:
    """Weighted operators with an operator that is not in `allowed` between the weights' DequantizeLinear and them."""
    return lambda graph: _not_adjacent(graph, frozenset(allowed), weights=True)


def inputs_not_adjacent(allowed: Collection[str]) -> Predicate:
    """Weighted operators with an operator that is not in `allowed` between the input's DequantizeLinear and them."""
    return lambda graph: _not_adjacent(graph, frozenset(allowed), weights=False)


def _not_adjacent(graph: QdqGraph, allowed: frozenset[str], *, weights: bool) -> Iterator[Violation]:
    for weighted in graph.weighted:
        for source in weighted.weights if weights else weighted.activations:
            between = [node for node in source.passed if node.op_type not in allowed or _pads_oddly(node)]
            if source.dequantize is not None and between:
                types = ", ".join(node.op_type for node in reversed(between))
                whose = "weights'" if weights else "input's"
                what = f"{types} stands between the {whose} DequantizeLinear and this {weighted.node.op_type}"
                yield Violation((weighted.node, *between, source.dequantize), what)


def _pads_oddly(node: ir.Node) -> bool:
    """Whether it is a Pad that no operator can fuse, because it does not pad with a constant."""
    return node.op_type == "Pad" and attribute(node, "mode", "constant") != "constant"


def quantized_biases(graph: QdqGraph) -> Iterator[Violation]:
    """Weighted operators whose bias comes from a DequantizeLinear."""
    for weighted in graph.weighted:
        dequantize = producer(weighted.bias)
        if dequantize is not None and is_dequantize(dequantize):
            yield Violation((weighted.node, dequantize), "its bias is quantized")


def quantizers_inside_fusions(fused: Collection[str]) -> Predicate:
    """Weighted operators followed by a Q/DQ pair whose readers would all fuse into them without the pair."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for weighted in graph.weighted:
            chain = graph.follow(weighted.node.outputs[0], ("BatchNormalization",))
            for q in chain.ends:
                readers = _readers_of_pair(q)
                if readers and all(reader.op_type in fused for reader in readers):
                    names = ", ".join(dict.fromkeys(reader.op_type for reader in readers))
                    what = f"the pair stands between this {weighted.node.op_type} and the {names} that fuses into it"
                    yield Violation((weighted.node, q, *readers), what)

    return find


def _readers_of_pair(q: ir.Node) -> list[ir.Node]:
    if not is_quantize(q):
        return []
    return [reader for dq in q.outputs[0].consumers() if is_dequantize(dq) for reader in dq.outputs[0].consumers()]


def _adds(graph: QdqGraph) -> Iterator[tuple[ir.Node, list[tuple[Source, ir.Node | None]]]]:
    """Adds of two activations; for each input, its source and the quantized weighted operator that computes it."""
    weighted = {id(w.node) for w in graph.weighted if w.quantized}
    for node in graph.nodes:
        if node.op_type != "Add" or any(is_constant(value) for value in node.inputs):
            continue
        branches = []
        for index in range(2):
            source = graph.source(node, index, ())
            before = producer(operand(node, index) if source.quantize is None else operand(source.quantize, 0))
            if before is not None and before.op_type == "BatchNormalization":
                before = producer(operand(before, 0))
            branches.append((source, before if id(before) in weighted else None))
        yield node, branches


def quantizers_on_weighted_branches(graph: QdqGraph) -> Iterator[Violation]:
    """Adds with a Q/DQ pair on each branch that comes directly from a weighted operator."""
    for node, branches in _adds(graph):
        ours = [(source, weighted) for source, weighted in branches if weighted is not None]
        if ours and all(source.dequantize is not None for source, _ in ours):
            source, weighted = ours[0]
            assert weighted is not None and source.dequantize is not None
            what = f"Q/DQ stands between {weighted.op_type} {name_of(weighted)!r} and this Add"
            yield Violation((node, source.quantize or source.dequantize, weighted), what)


def float_residuals(graph: QdqGraph) -> Iterator[Violation]:
    """Adds of a weighted operator's output and another tensor, neither of them quantized."""
    for node, branches in _adds(graph):
        first = next((weighted for _, weighted in branches if weighted is not None), None)
        if first is not None and all(source.dequantize is None for source, _ in branches):
            what = f"neither the shortcut nor the output of {first.op_type} {name_of(first)!r} is quantized"
            yield Violation((node, first), what)


def one_sided(names: Collection[str]) -> Predicate:
    """Operators of these types with quantized inputs and a float output."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if node.op_type not in names:
                continue
            sources = _activations(graph, node)
            if sources and all(source.dequantize is not None for source in sources):
                chain = graph.follow(node.outputs[0], MOVING | {"Relu", "Clip", "MaxPool"})
                if not any(is_quantize(reader) for reader in chain.ends):
                    yield Violation((node,), "its inputs are quantized, its output is not")

    return find


def _activations(graph: QdqGraph, node: ir.Node) -> list[Source]:
    sources = [graph.source(node, index) for index, value in enumerate(node.inputs) if value is not None]
    return [source for source in sources if not source.is_weight]


def partly_quantized(names: Collection[str], within: bool) -> Predicate:
    """Operators of these types with a quantized output, a quantized input, and an input or constant in float.

    Args:
        names: the types of operators.
        within: find those whose float input is a constant or is computed within the same layer, where no quantizer can
            be; otherwise all others.
    """

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if node.op_type not in names:
                continue
            chain = graph.follow(node.outputs[0], ("Relu", "Clip"))
            sources = [graph.source(node, index) for index in range(len(node.inputs))]
            without = [index for index, source in enumerate(sources) if source.dequantize is None]
            if not without or len(without) == len(sources) or not is_quantize(chain.end):
                continue
            is_constant, before = sources[without[0]].is_weight, producer(operand(node, without[0]))
            if within == (is_constant or (before is not None and layer_of(before) == layer_of(node))):
                rest = ": it is a constant" if is_constant else _origin(node, without[0])
                yield Violation((node,), f"input {without[0]} is not quantized{rest}")

    return find


def averages_without_padding(graph: QdqGraph) -> Iterator[Violation]:
    """AveragePools between quantizers that do not count their padding, except for 3x3 averages with stride 1."""
    for violation in surrounded(("AveragePool",))(graph):
        node = violation.nodes[0]
        has_own_kernel = attribute(node, "kernel_shape") == (3, 3) and set(attribute(node, "strides", (1, 1))) == {1}
        if not attribute(node, "count_include_pad", 0) and not has_own_kernel:
            yield Violation(violation.nodes, "its count_include_pad is 0")


def quantized_transposed_convolutions(graph: QdqGraph) -> Iterator[Violation]:
    """ConvTransposes of quantized weights."""
    for weighted in graph.weighted:
        if weighted.node.op_type == "ConvTranspose" and weighted.weight.dequantize is not None:
            yield Violation((weighted.node,), "its weights are quantized")


def shared_dequantizers(graph: QdqGraph) -> Iterator[Violation]:
    """DequantizeLinear nodes of activations with several readers."""
    for node in graph.dequantizes:
        readers = node.outputs[0].consumers()
        if len(readers) > 1 and not is_constant(node.inputs[0]):
            yield Violation((node, *readers), f"it has {len(readers)} readers")


def unequal_concats(graph: QdqGraph) -> Iterator[Violation]:
    """Concats of inputs with different scales or zero points."""
    for node in graph.nodes:
        if node.op_type != "Concat":
            continue
        sources = [graph.source(node, index, ()) for index in range(len(node.inputs))]
        found = [Quantization.of(source.dequantize) for source in sources if source.dequantize is not None]
        scales = [q.scale for q in found if q.scale is not None and q.scale.size == 1]
        if len(scales) > 1 and (
            len({float(np.ravel(scale)[0]) for scale in scales}) > 1 or len({q.zero for q in found}) > 1
        ):
            yield Violation((node,), f"its {len(found)} inputs have different scales")


def surrounded(names: Collection[str]) -> Predicate:
    """Operators of these types between a DequantizeLinear and a QuantizeLinear."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if node.op_type not in names:
                continue
            sources = _activations(graph, node)
            quantized = [source for source in sources if source.dequantize is not None]
            chain = graph.follow(node.outputs[0], MOVING)
            if quantized and len(quantized) == len(sources) and any(is_quantize(end) for end in chain.ends):
                yield Violation((node,), f"{node.op_type} stands between DequantizeLinear and QuantizeLinear")

    return find
