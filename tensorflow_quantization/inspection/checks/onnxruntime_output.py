"""Predicates about the output of a weighted operator: whether ONNX Runtime can fuse a quantizer into the operator.

ONNX Runtime fuses a Conv or Gemm into an integer kernel if its only reader is a QuantizeLinear. Before, it moves the
quantizer back through operators that keep the values, and drops a Relu or Clip if the quantizer saturates at the same
limits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.inspection.checks.qdq_graph import Chain, QdqGraph, WeightedNode
from tensorflow_quantization.inspection.checks.rule import Predicate, Violation
from tensorflow_quantization.onnx_graph.operators import ACTIVATIONS, MOVING
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_constant,
    is_dequantize,
    is_quantize,
    name_of,
    only_reader,
    operand,
    producer,
)

#: ONNX Runtime moves a quantizer back through these operators. Measured: not through Flatten.
_PASSED = (MOVING - {"Flatten"}) | {"Dropout", "MaxPool"}

#: ONNX Runtime drops these operators if the quantizer after them saturates at the same limits.
_CLIPPING = ("Relu", "Clip")


def outputs(kind: str) -> Predicate:
    """A predicate for weighted operators that stay in float because of their output.

    Args:
        kind: the reason: "graph-output", "several-readers", "swish", "batch-normalization", "activation", "clipping",
            "matmul-bias-relu" or "no-quantizer".
    """

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for weighted in graph.weighted:
            found = _classify(graph, weighted) if weighted.quantized and _needs_quantizer(graph, weighted) else None
            if found is not None and found[0] == kind:
                yield found[1]

    return find


def bias_of_matmul(weighted: WeightedNode) -> ir.Node | None:
    """The Add of a constant vector to the output of a MatMul, if it is the only reader: both can become one Gemm."""
    output = weighted.node.outputs[0]
    add = only_reader(output, "Add") if weighted.node.op_type == "MatMul" else None
    vectors = [constant(value) for value in add.inputs if value is not output] if add is not None else []
    return add if vectors and vectors[0] is not None and vectors[0].ndim == 1 else None


def _needs_quantizer(graph: QdqGraph, weighted: WeightedNode) -> bool:
    node = weighted.node
    if node.op_type == "Conv":
        return True
    if node.op_type == "Gemm":  # without a bias, or with an integer bias, QGemm can write floats
        return weighted.bias is not None and not is_dequantize(producer(weighted.bias))
    # A MatMul with a known shape becomes a Gemm with its bias. Another MatMul has an integer kernel that writes floats.
    return bias_of_matmul(weighted) is not None and _is_static(node.inputs[0])


def _is_static(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and value.shape.is_static()


def _classify(graph: QdqGraph, weighted: WeightedNode) -> tuple[str, Violation] | None:
    node = weighted.node
    bias = bias_of_matmul(weighted)
    chain = graph.follow((bias or node).outputs[0], _PASSED | set(_CLIPPING))
    last = chain.passed[-1] if chain.passed else bias or node
    end = chain.end
    what = f"the output of {name_of(last)!r}" if last is not node else "its output"
    if chain.is_output and chain.ends:
        return "graph-output", Violation((node, last), f"{what} is an output of the graph, too")
    if len(chain.ends) > 1:
        kind = "swish" if _is_swish(chain) else "several-readers"
        readers = ", ".join(name_of(reader) for reader in chain.ends)
        return kind, Violation((node, *chain.ends), f"{what} has {len(chain.ends)} readers: {readers}")
    if end is None:
        return "no-quantizer", Violation((node,), f"{what} is an output of the graph, in float")
    if is_quantize(end):
        return _clipping(weighted, chain, end)
    kind = "batch-normalization" if end.op_type == "BatchNormalization" else "no-quantizer"
    kind = "activation" if end.op_type in ACTIVATIONS else kind
    return kind, Violation((node, end), f"{what} goes to {end.op_type} {name_of(end)!r} without a quantizer")


def _is_swish(chain: Chain) -> bool:
    """Whether the value is multiplied by a gate, such as a Sigmoid, that is computed from it."""
    multiply = next((reader for reader in chain.ends if reader.op_type == "Mul"), None)
    gates = [reader for reader in chain.ends if reader.op_type in ("Sigmoid", "HardSigmoid", "Tanh", "Softplus")]
    if multiply is None or len(chain.ends) != 2 or not gates:
        return False
    return any(value is not None and value is gates[0].outputs[0] for value in multiply.inputs)


def clipped(names: Collection[str]) -> Predicate:
    """Quantized operators of these types that are followed by a Relu or Clip which ONNX Runtime does not drop."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            sources = [graph.source(node, i) for i in range(len(node.inputs))] if node.op_type in names else []
            chain = graph.follow(node.outputs[0], _CLIPPING)
            if sources and all(source.dequantize is not None for source in sources) and is_quantize(chain.end):
                yield from _staying(node, chain)

    return find


def _staying(node: ir.Node, chain: Chain) -> Iterator[Violation]:
    """The Relus and Clips of a chain that ONNX Runtime does not drop before the quantizer at its end."""
    assert chain.end is not None
    for clip in chain.passed:
        if clip.op_type in _CLIPPING and (reason := _not_implied(clip, chain.end)) is not None:
            yield Violation((node, clip, chain.end), reason)


def _clipping(weighted: WeightedNode, chain: Chain, q: ir.Node) -> tuple[str, Violation] | None:
    clips = [node for node in chain.passed if node.op_type in _CLIPPING]
    if clips and bias_of_matmul(weighted) is not None and _rank(weighted.node) > 2:
        what = "ONNX Runtime does not move the quantizer back through the activation and the Reshape after its Gemm"
        return "matmul-bias-relu", Violation((weighted.node, clips[0], q), what)
    found = next(_staying(weighted.node, chain), None)
    return None if found is None else ("clipping", found)


def _rank(node: ir.Node) -> int:
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    return 0 if shape is None else len(shape)


def _not_implied(clip: ir.Node, q: ir.Node) -> str | None:
    """Why the quantizer does not saturate at the limits of the Relu or Clip before it; `None`: it does."""
    quantization = Quantization.of(q)
    limits, zero, scale, reached = quantization.limits, quantization.zero, quantization.scale, quantization.range
    if limits is None or zero is None or scale is None or reached is None:
        return f"the {clip.op_type} stays: the quantizer after it is not per tensor"
    if clip.op_type == "Relu":
        if zero == limits[0]:
            return None
        return f"the Relu stays: the zero point after it is {zero}, not the least {quantization.dtype}, {limits[0]}"
    step, (low, high) = float(np.ravel(scale)[0]), reached
    clip_low, clip_high = _bound(clip, 1, "min", -np.inf), _bound(clip, 2, "max", np.inf)
    # The limits may differ by a hundredth of a step, because the scale is rounded.
    if clip_low <= low + 0.01 * step and clip_high >= high - 0.01 * step:
        return None
    clip_range = f"{clip_low:g} .. {clip_high:g}"
    return f"the Clip to {clip_range} stays: the quantizer after it saturates at {low:.4g} and {high:.4g}"


def _bound(clip: ir.Node, index: int, name: str, without: float) -> float:
    value = operand(clip, index)
    if value is None:
        return float(attribute(clip, name, without))
    found = constant(value)
    # If the graph computes the limit, nothing is known of it: no quantizer saturates there.
    return -without if found is None else float(found)


def gemm_forms(graph: QdqGraph) -> Iterator[Violation]:
    """Quantized Gemms whose alpha or beta is not 1, or whose bias is not a vector."""
    for weighted in graph.weighted:
        node = weighted.node
        if node.op_type != "Gemm" or not weighted.quantized:
            continue
        if attribute(node, "alpha", 1.0) != 1 or (weighted.bias is not None and attribute(node, "beta", 1.0) != 1):
            yield Violation((node,), "its alpha or beta is not 1")
        bias = constant(weighted.bias)
        if weighted.bias is not None and bias is not None and bias.ndim != 1:
            yield Violation((node,), f"its bias has {bias.ndim} dimensions")


def shared_int8(names: Collection[str]) -> Predicate:
    """Operators of these types with an int8 quantizer at an input or output that has several readers."""

    def find(graph: QdqGraph) -> Iterator[Violation]:
        for node in graph.nodes:
            if node.op_type not in names:
                continue
            sources = [graph.source(node, index) for index, value in enumerate(node.inputs) if value is not None]
            quantizers = [s.quantize for s in sources if s.quantize is not None and not s.is_weight]
            end = graph.follow(node.outputs[0], _PASSED | set(_CLIPPING)).end
            if not quantizers:
                continue
            for q in [*quantizers, *([end] if end is not None and is_quantize(end) else [])]:
                readers = _readers(q)
                if Quantization.of(q).dtype == "int8" and readers > 1:
                    which = "output" if q is end else "input"
                    yield Violation(
                        (node, q), f"the int8 quantizer {name_of(q)!r} of its {which} has {readers} readers"
                    )
                    break

    return find


def _readers(q: ir.Node) -> int:
    pairs = [dq for dq in q.outputs[0].consumers() if is_dequantize(dq)]
    return max(len(pairs), *(len(dq.outputs[0].consumers()) for dq in pairs), 0)


def int8_activations(graph: QdqGraph) -> Iterator[Violation]:
    """All int8 quantizers of activations in the file, as one violation."""
    nodes = [q for q in graph.quantizes if Quantization.of(q).dtype == "int8" and not is_constant(q.inputs[0])]
    if nodes:
        yield Violation(tuple(nodes), f"{len(nodes)} activation quantizers are int8")
