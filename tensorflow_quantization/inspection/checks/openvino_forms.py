"""Predicates about forms that matter to OpenVINO only. Each yields `Violation`s."""

from __future__ import annotations

from collections.abc import Iterator

from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph, WeightedNode
from tensorflow_quantization.inspection.checks.rule import Violation
from tensorflow_quantization.onnx_graph.channelwise_reductions import channelwise_reductions
from tensorflow_quantization.onnx_graph.dequantized_inputs import dequantized_inputs
from tensorflow_quantization.onnx_graph.lost_scales import lost_scales
from tensorflow_quantization.onnx_graph.misplaced_constants import misplaced_constants
from tensorflow_quantization.onnx_graph.negated_activations import negated_activations
from tensorflow_quantization.onnx_graph.operators import RECURRENT
from tensorflow_quantization.onnx_graph.pooled_activations import pooled_activations
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.quantized_reductions import quantized_reductions
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_constant,
    is_dequantize,
    name_of,
    operand,
    producer,
    shape_of,
)
from tensorflow_quantization.onnx_graph.rounded_results import rounded_results
from tensorflow_quantization.onnx_graph.scaled_normalizations import scaled_normalizations
from tensorflow_quantization.onnx_graph.uncovered_points import uncovered_points

#: The activations of recurrent operators that OpenVINO loads. ONNX' names have no fixed case.
_RECURRENT_ACTIVATIONS = frozenset({"relu", "sigmoid", "tanh"})


def asymmetric_products(graph: QdqGraph) -> Iterator[Violation]:
    """MatMuls of two activations whose left operand has a zero point, or whose right operand is not symmetric."""
    for weighted in graph.weighted:
        left, right = weighted.data, weighted.weight
        if left.is_weight or right.is_weight or left.dequantize is None or right.dequantize is None:
            continue
        a, b = Quantization.of(left.dequantize), Quantization.of(right.dequantize)
        if a.zero != 0:
            yield Violation((weighted.node, left.dequantize), f"its left input is {a.dtype} with zero point {a.zero}")
        elif (b.dtype, b.zero) not in (("int8", 0), ("uint8", 128)):
            yield Violation((weighted.node, right.dequantize), f"its right input is {b.dtype} with zero point {b.zero}")


def integer_operators(graph: QdqGraph) -> Iterator[Violation]:
    """Integer operators in forms for which OpenVINO has no integer kernel."""
    for node in graph.nodes:
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            yield Violation((node,), f"it is a {node.op_type}")
        elif node.op_type in ("QLinearConv", "QLinearMatMul"):
            scale = constant(operand(node, 4))
            if scale is not None and scale.ndim:
                yield Violation((node,), f"it is a {node.op_type} with {scale.size} scales for its weights")


def grouped_transposed(graph: QdqGraph) -> Iterator[Violation]:
    """Quantized ConvTransposes with more than one group."""
    for weighted in graph.weighted:
        groups = attribute(weighted.node, "group", 1)
        if weighted.node.op_type == "ConvTranspose" and weighted.quantized and groups > 1:
            yield Violation((weighted.node,), f"it has {groups} groups")


def counted_padding(graph: QdqGraph) -> Iterator[Violation]:
    """AveragePools that average padding, or read a Pad, and whose input has a zero point that is not 0."""
    for node in graph.nodes:
        if node.op_type != "AveragePool":
            continue
        padded = bool(attribute(node, "count_include_pad", 0)) and any(attribute(node, "pads", ()))
        source = producer(operand(node, 0))
        if source is not None and source.op_type == "Pad":
            padded, source = True, producer(operand(source, 0))
        if padded and source is not None and is_dequantize(source):
            zero = Quantization.of(source).zero
            if zero != 0:
                yield Violation((node, source), f"it averages padding, and its input has zero point {zero}")


def activations_of_pools(graph: QdqGraph) -> Iterator[Violation]:
    """MaxPools of a convolution before an activation that is not monotonic."""
    for pool, activation in pooled_activations(graph.nodes):
        yield Violation((activation, pool), f"OpenVINO computes {name_of(pool)} after it")


def negative_factors_of_activations(graph: QdqGraph) -> Iterator[Violation]:
    """Negative factors of an activation of a quantized convolution, over which OpenVINO moves them."""
    for activation, negating in negated_activations(graph.nodes):
        yield Violation((negating, activation), f"OpenVINO computes {name_of(activation)} after it")


def points_without_bias(graph: QdqGraph) -> Iterator[Violation]:
    """Quantized transposed convolutions with points that no input reaches."""
    for convolution, quantizer in uncovered_points(graph.nodes):
        yield Violation((convolution, quantizer), "its strides are longer than its kernel")


def products_without_scales(graph: QdqGraph) -> Iterator[Violation]:
    """Products of integers without a bias that lose their scales."""
    for product, reader in lost_scales(graph.nodes):
        yield Violation((product, reader), f"it has no bias, and its scales get lost before {name_of(reader)}")


def constants_after_products(graph: QdqGraph) -> Iterator[Violation]:
    """Operators whose constants OpenVINO applies to another axis of a matrix product."""
    for product, node in misplaced_constants(graph.nodes):
        yield Violation(
            (node, product), f"its constants differ along another axis than the units of {name_of(product)}"
        )


def results_in_integers(graph: QdqGraph) -> Iterator[Violation]:
    """Limits and averages of dequantized tensors that OpenVINO rounds to integers."""
    for node, dequantize in rounded_results(graph.nodes):
        yield Violation((node, dequantize), f"OpenVINO computes it from the integers that {name_of(dequantize)} reads")


def channelwise_reductions_of_sequences(graph: QdqGraph) -> Iterator[Violation]:
    """Reductions of tensors of rank 3 with which OpenVINO computes an operator with parameters of channels."""
    for reduction, channelwise in channelwise_reductions(graph.nodes):
        what = f"OpenVINO applies the parameters of {name_of(channelwise)} to the sequences of the batch"
        yield Violation((reduction, channelwise), what)


def operators_on_integers(graph: QdqGraph) -> Iterator[Violation]:
    """Reductions and Pads that OpenVINO computes from the integers of a dequantized tensor, and wrong."""
    for node, dequantize in dequantized_inputs(graph.nodes):
        yield Violation((node, dequantize), f"it reads what {name_of(dequantize)} dequantizes")


def reductions_with_quantizers(graph: QdqGraph) -> Iterator[Violation]:
    """Reductions that OpenVINO computes in one operator with the quantizer after them, and wrong."""
    for reduction, quantizer in quantized_reductions(graph.nodes):
        yield Violation((reduction, quantizer), f"OpenVINO computes it together with {name_of(quantizer)}")


def factors_before_normalizations(graph: QdqGraph) -> Iterator[Violation]:
    """Normalizations before which OpenVINO drops a factor."""
    for normalization, scaled in scaled_normalizations(graph.nodes):
        yield Violation((normalization, scaled), f"OpenVINO drops the factor of {name_of(scaled)}")


def sequence_lengths(graph: QdqGraph) -> Iterator[Violation]:
    """Recurrent operators with lengths of sequences of unknown shape, and results that depend on the lengths.

    The outputs of a forward operator are the same up to the end of each sequence; that nothing reads them after the end
    is assumed.
    """
    for node in graph.nodes:
        lengths, shape = operand(node, 4), shape_of(operand(node, 0))
        if node.op_type not in RECURRENT or lengths is None or is_constant(lengths):
            continue
        if shape is not None and None not in shape:
            continue
        direction = attribute(node, "direction", "forward")
        states = [y for y in node.outputs[1:] if y.uses() or y.is_graph_output()]
        if direction != "forward":
            yield Violation((node,), f"it has sequence_lens, and its direction is {direction}")
        elif states:
            yield Violation((node,), "it has sequence_lens, and its last state is read")


def recurrent_activations(graph: QdqGraph) -> Iterator[Violation]:
    """Recurrent operators with activations that OpenVINO does not load."""
    for node in graph.nodes:
        if node.op_type in RECURRENT:
            others = [a for a in attribute(node, "activations", ()) if a.lower() not in _RECURRENT_ACTIVATIONS]
            if others:
                yield Violation((node,), f"its activation is {others[0]}")


def strided_pointwise(graph: QdqGraph) -> Iterator[Violation]:
    """Strided 1x1 Convs whose input's DequantizeLinear is read by such Convs only."""
    pointwise = {id(w.node): w for w in graph.weighted if w.quantized and _strides_over_points(w)}
    for weighted in pointwise.values():
        dequantize = weighted.data.dequantize
        if dequantize is None or weighted.data.passed:
            continue
        readers = dequantize.outputs[0].consumers()
        if all(id(reader) in pointwise for reader in readers):
            what = f"all {len(readers)} readers of its input are strided 1x1 Convs"
            yield Violation((weighted.node, dequantize), what if len(readers) > 1 else "it is a strided 1x1 Conv")


def _strides_over_points(weighted: WeightedNode) -> bool:
    node = weighted.node
    shape = None if weighted.weight.dequantize is None else weighted.weight.dequantize.inputs[0].shape
    strides = attribute(node, "strides", ())
    return (
        node.op_type == "Conv"
        and shape is not None
        and all(dim == 1 for dim in shape[2:])
        and any(stride > 1 for stride in strides)
        and not any(attribute(node, "pads", ()))
    )
