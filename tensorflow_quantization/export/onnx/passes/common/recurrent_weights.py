"""For ONNX Runtime and OpenVINO: the integer weights of a recurrent layer without a DequantizeLinear.

    int8 W ── DQ ── LSTM    →    int8 W ── Cast(int32) ── Cast(float) ── Mul(scale) ── LSTM

The same for a layer that is written step by step, where each step multiplies floats by the same weights.

Both runtimes compute this form once, when they load the file. ONNX Runtime 1.32 would compute a DequantizeLinear in
each run: a single step of an LSTM with 512 units took 2.7 times as long (AMD EPYC, AVX2). OpenVINO 2026.4 does not load
an LSTM with it, or with a Cast from int8 to float, if another operator of the file is quantized.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.operators import FACTORS, RECURRENT
from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_constant,
    is_dequantize,
    operand,
    producer,
    readers,
)


def recurrent_weights(builder: Builder) -> int:
    """Replace the DequantizeLinear of each weight of a recurrent layer, and return their number."""
    nodes = [node for node in builder.graph if is_dequantize(node) and _is_weight(node)]
    for node in nodes:
        integers, scale, zero_point = (*node.inputs, None)[:3]
        (output,) = node.outputs
        rank, axis = len(integers.shape), attribute(node, "axis", 1)

        def per_channel(array: np.ndarray, rank: int = rank, axis: int = axis) -> np.ndarray:
            return array.reshape([-1 if i == axis else 1 for i in range(rank)]) if array.ndim else array

        def insert(op_type: str, *inputs: object, node: ir.Node = node, **attributes: int) -> ir.Value:
            return builder.insert(op_type, inputs, attributes, before=node, name=f"{node.name}/{op_type}")

        x = insert("Cast", integers, to=ir.DataType.INT32.value)
        offset, factor = constant(zero_point), constant(scale)
        assert factor is not None  # see `_is_weight`
        if offset is not None and offset.any():
            x = insert("Sub", x, per_channel(offset.astype(np.int32)))
        x = insert("Cast", x, to=ir.DataType.FLOAT.value)
        replace(output, insert("Mul", x, per_channel(factor)))
    return len(nodes)


def _is_weight(node: ir.Node) -> bool:
    """Whether all readers of a dequantized constant are recurrent operators, or several that multiply floats by it."""
    if not is_constant(node.inputs[0]) or constant(node.inputs[1]) is None:
        return False
    found = list(_operators(node.outputs[0]))
    if len(found) > 1 and all(_multiplies_floats(reader, weight) for reader, weight in found):
        return True
    return bool(found) and all(reader.op_type in RECURRENT for reader, _ in found)


def _multiplies_floats(node: ir.Node, weight: ir.Value) -> bool:
    """Whether a node multiplies a tensor that is not dequantized by the weight."""
    data, factor = (operand(node, index) for index in FACTORS.get(node.op_type, (0, 0)))
    return factor is weight and data is not weight and not is_dequantize(producer(data))


def _operators(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The readers of a weight, each with what it reads: the weight, or what was joined, padded or kept apart."""
    for reader in readers(value):
        if reader.op_type in ("Concat", "Max", "Pad"):
            yield from _operators(reader.outputs[0])
        else:
            yield reader, value
