"""Operators that multiply a tensor by constants, or add some."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.queries import constant, operand

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})


def constant_of(node: ir.Node) -> np.ndarray | None:
    """The constant of an arithmetic operator with one other input; `None`: it has none, or divides it."""
    first, second = (constant(operand(node, index)) for index in (0, 1))
    return second if first is None else None if node.op_type == "Div" else first


def is_affine(node: ir.Node) -> bool:
    """Whether an operator multiplies by constants, or adds some."""
    return node.op_type == "BatchNormalization" or (node.op_type in ARITHMETIC and constant_of(node) is not None)


def data_of(node: ir.Node) -> ir.Value | None:
    """The operand of an affine operator that is not constant."""
    return operand(node, 0) if constant(operand(node, 0)) is None else operand(node, 1)
