"""Read operators that scale and shift each channel: batch normalization, and arithmetic with constants."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.queries import attribute, constant, is_private, operand, producer

_ARITHMETIC = frozenset({"Mul", "Div", "Add", "Sub"})


@dataclass
class Affine:
    """An operator that computes `output` = `input` * factor + shift; both are float64, of shape (channels,) or (1,)."""

    input: ir.Value
    output: ir.Value
    factor: np.ndarray
    shift: np.ndarray


@dataclass
class Chain:
    """Nodes in sequence, the last node first, that together compute `source` * factor + shift."""

    source: ir.Value
    factor: np.ndarray = field(default_factory=lambda: np.ones(1))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1))
    nodes: list[ir.Node] = field(default_factory=list)


def read_chain(value: ir.Value, axis: int) -> Chain:
    """The longest chain of affine operators that computes `value` and whose inner values have no other reader."""
    chain = Chain(value)
    while (node := producer(chain.source)) is not None and (not chain.nodes or is_private(chain.source)):
        affine = read_affine(node, axis)
        if affine is None:
            break
        chain.factor, chain.shift = chain.factor * affine.factor, chain.factor * affine.shift + chain.shift
        chain.nodes.append(node)
        chain.source = affine.input
    return chain


def read_affine(node: ir.Node, axis: int) -> Affine | None:
    """The factor and shift of `node`; `None` if it is not affine per channel.

    Args:
        node: any node.
        axis: the axis of the channels, counted from the end: -1 is the last axis.
    """
    if node.op_type == "BatchNormalization":
        affine = read_batch_norm(node)
        shape = affine.input.shape if affine is not None else None
        # BatchNormalization has its channels at index 1: this is `axis` only if the rank is 1 - axis.
        return affine if shape is None or len(shape) == 1 - axis else None
    if node.op_type not in _ARITHMETIC:
        return None
    first, second = (_per_channel(operand(node, i), axis) for i in (0, 1))
    number, source = (second, operand(node, 0)) if second is not None else (first, operand(node, 1))
    if number is None or source is None or (node.op_type == "Div" and (second is None or not number.all())):
        return None
    one, zero = np.ones_like(number), np.zeros_like(number)
    if node.op_type == "Mul":
        factor, shift = number, zero
    elif node.op_type == "Div":
        factor, shift = one / number, zero
    elif node.op_type == "Add":
        factor, shift = one, number
    else:
        factor, shift = (one, -number) if second is not None else (-one, number)
    return Affine(source, node.outputs[0], factor, shift)


def read_batch_norm(node: ir.Node) -> Affine | None:
    """The factor and shift of a BatchNormalization with constant weights; its channels are the second axis.

    factor = gamma / sqrt(variance + epsilon), shift = beta - mean * factor. Source: ONNX, BatchNormalization.
    """
    if node.op_type != "BatchNormalization":
        return None
    source = operand(node, 0)
    weights = [constant(operand(node, i)) for i in range(1, 5)]
    if source is None or any(w is None for w in weights):
        return None
    gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in weights)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return Affine(source, node.outputs[0], factor, beta - mean * factor)


def _per_channel(value: ir.Value | None, axis: int) -> np.ndarray | None:
    """A constant that varies along `axis` only, as a float64 vector; `None` for any other value."""
    numbers = constant(value)
    if numbers is None or numbers.ndim > 1 - axis:  # its rank may exceed the rank of the tensor, and broadcast it
        return None
    if any(size != 1 for i, size in enumerate(numbers.shape, start=-numbers.ndim) if i != axis):
        return None
    return numbers.astype(np.float64).reshape(-1)
