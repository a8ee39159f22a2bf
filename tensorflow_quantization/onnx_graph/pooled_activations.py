"""Where OpenVINO would apply an activation before a MaxPool that comes before it in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from tensorflow_quantization.onnx_graph.operators import MOVING, POINTWISE
from tensorflow_quantization.onnx_graph.queries import attribute, is_constant, producer, readers

#: They fall and rise: the activation of the maximum is not the maximum of the activations.
_FALLING_AND_RISING = frozenset({"Abs", "Gelu", "HardSwish", "Mish", "Swish"})
#: What an activation that is a product is made of.
_ELEMENTWISE = POINTWISE | {"Erf"}
#: Operators between a tensor and its product with itself; `gelu` has the longest chain: Div, Erf, Add, Mul.
_STEPS = 5


def pooled_activations(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """MaxPools of a convolution, each with an activation of its output that is not monotonic.

    OpenVINO 2026.4 fuses such an activation with the convolution, as if it commuted with the maximum. Measured: Abs,
    gelu, hard_silu, mish and silu after pools of one and two dimensions, and all but silu after operators that move
    values, too. Between convolution and pool may be an affine function of the channels. Another MaxPool, of 1x1, keeps
    them apart.

    Args:
        nodes: nodes of a graph.

    Yields:
        (MaxPool, the first such activation; of a product with itself, the product).
    """
    for node in nodes:
        if (
            node.op_type == "MaxPool"
            and len(attribute(node, "kernel_shape", ())) <= 2
            and _is_convolved(node.inputs[0])
        ):
            activation = next(_activations(node.outputs[0]), None)
            if activation is not None:
                yield node, activation


def _is_convolved(value: ir.Value | None) -> bool:
    """Whether a value is an affine function of what a Conv computes, with constants, or moves such values."""
    node = producer(value)
    while node is not None and node.op_type in MOVING | {"Add", "BatchNormalization", "Div", "Mul", "Sub"}:
        computed = [operand for operand in node.inputs if not is_constant(operand)]
        node = producer(computed[0]) if len(computed) == 1 else None
    return node is not None and node.op_type == "Conv"


def _activations(value: ir.Value, moved: bool = False) -> Iterator[ir.Node]:
    for node in readers(value):
        silu = producer(next((x for x in node.inputs if x is not value), None), "Sigmoid") is not None
        if node.op_type in _FALLING_AND_RISING or (
            node.op_type == "Mul" and is_gate(node, value) and not (silu and moved)
        ):
            yield node
        elif node.op_type in MOVING and node.inputs[0] is value:
            yield from _activations(node.outputs[0], moved=True)


def is_gate(product: ir.Node, value: ir.Value) -> bool:
    """Whether the other factor is a function of `value`, element by element."""
    others = [factor for factor in product.inputs if factor is not value]
    for _ in range(_STEPS):
        nodes = [node for other in others if (node := producer(other, *_ELEMENTWISE)) is not None]
        others = [x for node in nodes for x in node.inputs if x is not None and not is_constant(x)]
        if any(other is value for other in others):
            return True
    return False
