"""Where OpenVINO would apply the parameters of the channels to the wrong axis, after a reduction of sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.affine import ARITHMETIC, constant_of, data_of, is_affine
from tensorflow_quantization.onnx_graph.operators import LINEAR_REDUCTIONS
from tensorflow_quantization.onnx_graph.quantization import Quantization, same_parameters
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_dequantize,
    is_private,
    is_quantize,
    only_reader,
    operand,
    producer,
    readers,
    shape_of,
)

#: Factors before these move after them, in files with quantizers.
_LINEAR = LINEAR_REDUCTIONS | {"GlobalAveragePool", "GlobalMaxPool"}
#: All reductions that OpenVINO computes in one operator with what comes after them.
REDUCTIONS = _LINEAR | {"ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare"}
#: Reductions past which only positive factors move.
SELECTING_REDUCTIONS = frozenset({"GlobalMaxPool", "ReduceMax", "ReduceMin"})
#: Operators with one tensor that fuse with a reduction.
_FUSED = frozenset(
    {"Abs", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round"}
    | {"Sigmoid", "Softplus", "Sqrt", "Tanh"}
)
#: Operators past which factors and shifts move; factors only.
_PASSED = frozenset({"AveragePool", "Gather", "Identity", "MaxPool", "Neg", "Resize", "Split"})
_PASSED_BY_FACTORS = LINEAR_REDUCTIONS | {"LeakyRelu", "PRelu", "Pad", "Relu"}
#: Operators after which nothing is left to fuse with a reduction: what moved there moves on.
_PASSED_ON = frozenset({"AveragePool", "Flatten", "MaxPool", "Squeeze", "Unsqueeze"})


def channelwise_reductions(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Reductions of sequences (batch, channels, steps), each with an operator with a parameter for each channel.

    OpenVINO 2026.4 computes such an operator together with the reduction, and takes the parameter for the position in
    the batch, even beyond the last parameter: in a tensor of rank 3, it takes the first axis for the channels. The
    result is right if the batch has one sequence. Measured: Add, BatchNormalization, Div, Mul, PRelu, Sub and
    quantizers after reductions over the steps or over the batch, directly or after activations. In a file with
    quantizers, OpenVINO moves factors from before a mean, a sum, a maximum or a minimum: there, the operator may be the
    convolution whose weights have a scale per channel, or a Concat of tensors with different scales, too. A 1x1
    MaxPool or a Reshape after the reduction keeps them apart.

    Not found: what comes after an activation of several operators, and factors before a sum with a float tensor.

    Args:
        nodes: nodes of a graph.

    Yields:
        (reduction, operator).
    """
    nodes = list(nodes)
    quantized = any(map(is_quantize, nodes))
    for node in nodes:
        if node.op_type not in REDUCTIONS or node.outputs[0].dtype not in (None, ir.DataType.FLOAT):
            continue
        source, axes, aligned = _arranged(node)
        if axes is None or not _misread(source, axes):
            continue
        found = _after(node, axes) if aligned else None
        if found is None and quantized and node.op_type in _LINEAR and not _moves_on(node.outputs[0]):
            found = _before(source, positive=node.op_type in SELECTING_REDUCTIONS)
        if found is not None:
            yield node, found


def reduced_axes(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    """The axes of a reduction, counted from the first; `None` if the file does not say."""
    if node.op_type.startswith("Global"):
        return tuple(range(2, rank))
    axes = attribute(node, "axes")
    if axes is None:
        axes = constant(operand(node, 1))
    return None if axes is None else tuple(sorted(int(axis) % rank for axis in np.ravel(axes)))


def keeps_axes(node: ir.Node) -> bool:
    """Whether the result of a reduction has the reduced axes, of size 1."""
    return node.op_type.startswith("Global") or bool(attribute(node, "keepdims", 1))


def _arranged(node: ir.Node) -> tuple[ir.Value | None, tuple[int, ...] | None, bool]:
    """The tensor and axes that OpenVINO reduces, before a Transpose, and whether no Transpose is left after that."""
    source = operand(node, 0)
    shape = _shape(source)
    axes = None if shape is None or len(shape) != 3 else reduced_axes(node, 3)
    transpose = producer(source, "Transpose")
    if axes is None or transpose is None:
        return source, axes, True
    perm = attribute(transpose, "perm", (2, 1, 0))
    kept = [perm[axis] for axis in range(3) if axis not in axes]
    reduced = tuple(sorted(perm[axis] for axis in axes))
    return operand(transpose, 0), reduced, not keeps_axes(node) and kept == sorted(kept)


def _shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """The shape of a tensor; sizes are unknown if only the convolution that computes it tells the rank."""
    while value is not None:
        shape, node = shape_of(value), producer(value)
        if shape is not None or node is None:
            return shape
        if node.op_type in ("Conv", "ConvTranspose"):
            return (None,) * (2 + len(attribute(node, "kernel_shape", ())))
        if node.op_type not in _FUSED | ARITHMETIC | {"BatchNormalization"}:
            return None
        value = operand(node, 0)
    return None


def _misread(source: ir.Value | None, axes: tuple[int, ...]) -> bool:
    """Whether the result has several channels and another axis of several values: either the batch or the steps."""
    shape = _shape(source) or (None,) * 3
    return axes in ((0,), (2,)) and shape[1] != 1 and shape[2 - axes[0]] != 1


def _after(reduction: ir.Node, axes: tuple[int, ...]) -> ir.Node | None:
    """An operator with channelwise parameters that fuses with the reduction."""
    keeps = keeps_axes(reduction)
    rank, axis = (3, 1) if keeps else (2, int(axes == (2,)))
    node = only_reader(reduction.outputs[0])
    while node is not None:
        if node.op_type == "BatchNormalization" or is_quantize(node) or is_dequantize(node):
            channelwise = node.op_type == "BatchNormalization" or Quantization.of(node).per_channel
        elif node.op_type in ARITHMETIC | {"PRelu"}:
            numbers = constant_of(node)
            channelwise = numbers is not None and lies_along(numbers, rank, axis)
            if not channelwise and (numbers is None or numbers.size > 1):
                return None
        elif node.op_type not in _FUSED:
            return None
        else:
            channelwise = False
        if channelwise:
            return node
        node = only_reader(node.outputs[0])
    return None


def lies_along(numbers: np.ndarray, rank: int, axis: int = 1) -> bool:
    """Whether a constant has several numbers, all along one axis of a tensor of this rank."""
    shape = (1,) * (rank - numbers.ndim) + numbers.shape
    return numbers.size > 1 and len(shape) == rank and numbers.size == shape[axis]


def _moves_on(value: ir.Value) -> bool:
    """Whether factors move on, past a reader of a reduction, which then has no other operator that fuses alone."""

    def passed(node: ir.Node) -> bool:
        sizes = constant(operand(node, 1)) if node.op_type == "Reshape" else None
        return node.op_type in _PASSED_ON or (sizes is not None and len(sizes) == 2)

    return any(map(passed, readers(value)))


def _before(value: ir.Value | None, positive: bool) -> ir.Node | None:
    """The operator whose channelwise factor, or shift before which a factor comes, moves past the reduction."""
    shift: ir.Node | None = None
    limited = scaled = False  # whether a Relu or the like keeps shifts from moving; whether a factor takes them along
    while True:
        convolution, between = _convolution(value)
        if convolution is not None:
            return _of_convolution(convolution, between, shift)
        node = producer(value)
        numbers = constant_of(node) if node is not None and node.op_type in ARITHMETIC else None
        if node is None:
            return None
        if is_dequantize(node):
            scheme = Quantization.of(node)
            return node if scheme.per_channel and scheme.axis in (1, -2) else shift
        if node.op_type == "Concat":
            return node if _joins_scales(node) else shift if _dequantized(operand(node, 0)) else None
        if node.op_type == "BatchNormalization":
            factors = constant(operand(node, 1))
            return None if limited or factors is None or (positive and (factors <= 0).any()) else node
        if numbers is not None:
            channelwise = lies_along(numbers, len(_shape(node.outputs[0]) or (0, 0, 0)))
            if not channelwise and numbers.size > 1:
                return None
            if node.op_type in ("Add", "Sub"):
                if limited:
                    return None
                shift = node if channelwise else shift
                if shift is not None and scaled:
                    return shift
            elif positive and (numbers <= 0).any():
                return None
            elif channelwise or shift is not None:
                return node if channelwise else shift
            else:
                scaled = True
        elif node.op_type in _PASSED_BY_FACTORS:
            limited = True
        elif node.op_type not in _PASSED and not _keeps_channels(node):
            return None
        value = data_of(node)


def _convolution(value: ir.Value | None) -> tuple[ir.Node | None, list[ir.Node]]:
    """A convolution and the affine operators after it that OpenVINO folds into its weights and bias, the last first."""
    between: list[ir.Node] = []
    while (node := producer(value)) is not None and value is not None:
        if node.op_type in ("Conv", "ConvTranspose"):
            folds = is_private(value) or not between or between[-1].op_type in ("Add", "Sub")
            return (node, between) if folds else (None, [])
        if (between and not is_private(value)) or not (is_affine(node) or node.op_type == "Identity"):
            break
        between.append(node)
        value = data_of(node)
    return None, []


def _of_convolution(convolution: ir.Node, between: list[ir.Node], shift: ir.Node | None) -> ir.Node | None:
    """What moves past a reduction from a convolution: the scales of integers, unless they are before a bias."""
    data, weights = (producer(operand(convolution, index), "DequantizeLinear") for index in (0, 1))
    biased = operand(convolution, 2) is not None or any(
        node.op_type in ("Add", "BatchNormalization", "Sub") for node in between
    )
    if biased or data is None or weights is None:
        return None
    for node in between:
        numbers = constant_of(node)
        if numbers is not None and numbers.size > 1:
            return node
    return convolution if Quantization.of(weights).per_channel else shift


def _joins_scales(concat: ir.Node) -> bool:
    """Whether a Concat joins channels of dequantized tensors with different factors or shifts."""
    found = list(filter(None, map(_dequantized, concat.inputs)))
    if attribute(concat, "axis") not in (1, -2) or len(found) < len(concat.inputs):
        return False
    first, _ = found[0]
    return any(changed or not same_parameters(first, node) for node, changed in found)


def _dequantized(value: ir.Value | None) -> tuple[ir.Node, bool] | None:
    """The DequantizeLinear that a tensor comes from, and whether factors or shifts come after it."""
    changed = False
    while (node := producer(value)) is not None and not is_dequantize(node):
        if not is_affine(node) and node.op_type not in _PASSED:
            return None
        changed = changed or is_affine(node)
        value = data_of(node)
    return None if node is None else (node, changed)


def _keeps_channels(node: ir.Node) -> bool:
    """Whether an operator changes the shape, but neither of the first two axes."""
    if node.op_type not in ("Reshape", "Squeeze", "Unsqueeze"):
        return False
    before, after = shape_of(operand(node, 0)), shape_of(node.outputs[0])
    return before is not None and after is not None and before[1:2] == after[1:2] and before[1:2] != (None,)
