"""For OpenVINO: give recurrent operators after quantized convolutions their initial states, zeros.

    DQ ── Conv ── … ── x ── LSTM    →    DQ ── Conv ── … ── x ─────────────────────── LSTM
                                                            └ Slice ── Clip ── Add ───┘

Without initial states, OpenVINO makes zeros of the batch's size, which it reads where the size first appears: at the
first convolution, before its bias. That convolution has two readers then, and OpenVINO 2026.4 loses its bias, or gives
what reads it in two parts wrong numbers (see `shape_barriers`). These zeros are computed from the first step instead:
without a size, and without the NaN that infinity times zero would be. A fixed batch has no such size.
The pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.operators import RECURRENT
from tensorflow_quantization.onnx_graph.queries import attribute, is_dequantize, producer

#: Inputs of recurrent operators: the first state, and the first cell state, which an LSTM has.
_HIDDEN, _CELL = 5, 6


def initial_states(builder: Builder) -> int:
    """Insert the states, and return the number of operators that got them."""
    if not any(node.op_type == "Conv" and is_dequantize(producer(node.inputs[0])) for node in builder.graph):
        return 0
    changed = 0
    for node in [node for node in builder.graph if node.op_type in RECURRENT]:
        wanted = (_HIDDEN, _CELL) if node.op_type == "LSTM" else (_HIDDEN,)
        missing = [index for index in wanted if index >= len(node.inputs) or node.inputs[index] is None]
        if not missing or _fixed_batch(node.inputs[0]):
            continue
        states = _zeros(builder, node)
        node.resize_inputs(max(len(node.inputs), wanted[-1] + 1))
        for index in missing:
            node.replace_input_with(index, states)
        changed += 1
    return changed


def _fixed_batch(sequences: ir.Value | None) -> bool:
    return sequences is not None and sequences.shape is not None and isinstance(sequences.shape[1], int)


def _zeros(builder: Builder, node: ir.Node) -> ir.Value:
    """Zeros of shape (directions, batch, units), from sequences of shape (steps, batch, features)."""
    directions = 2 if attribute(node, "direction") == "bidirectional" else 1
    start, stop, axes = (np.asarray(ends, np.int64) for ends in ([0, 0], [1, 1], [0, 2]))
    first = builder.insert("Slice", [node.inputs[0], start, stop, axes], before=node)
    zero = builder.insert("Clip", [first, np.float32(0), np.float32(0)], before=node)
    units = np.zeros((directions, 1, attribute(node, "hidden_size")), np.float32)
    return builder.insert("Add", [zero, units], before=node)
