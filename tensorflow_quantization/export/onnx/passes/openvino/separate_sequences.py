"""For OpenVINO: give each recurrent operator a tensor of its own, if several read the same sequences.

    x ─┬─ LSTM    →    x ─┬─ LSTM
       └─ LSTM            └─ Pad(one more feature, zero) ── LSTM

OpenVINO 2026.4 puts a Transpose before each recurrent operator, and merges equal Transposes. Then it replaces one by a
Reshape for the sake of one operator: all others that read the Transpose get the steps in a wrong order.
Tensors with different numbers of features stay apart. The pass runs for files without a target, too: they may run in
OpenVINO.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max
from tensorflow_quantization.onnx_graph.operators import RECURRENT
from tensorflow_quantization.onnx_graph.quantization import source_of
from tensorflow_quantization.onnx_graph.queries import attribute, constant, layer_of

#: Of the Transpose that OpenVINO puts before a recurrent operator.
_BATCH_FIRST = (1, 0, 2)


def separate_sequences(builder: Builder) -> int:
    """Append zeros to the features of sequences that have other readers, and return the number of changed operators."""
    same = _first_equal(builder.graph)
    groups: dict[ir.Value, list[ir.Node]] = defaultdict(list)
    for node in builder.graph:
        if node.op_type in RECURRENT or (
            node.op_type == "Transpose" and tuple(attribute(node, "perm", ())) == _BATCH_FIRST
        ):
            groups[same.get(node.inputs[0], node.inputs[0])].append(node)
    changed = 0
    for nodes in groups.values():
        recurrent = [node for node in nodes if node.op_type in RECURRENT]
        if all(attribute(node, "direction") == "bidirectional" for node in recurrent):
            continue  # OpenVINO keeps these Transposes
        # The Transposes keep the tensor; without them, the first operator does.
        for count, node in enumerate(recurrent, start=int(len(recurrent) < len(nodes))):
            if count:
                _append_zeros(builder, node, count)
                changed += 1
    return changed


def _first_equal(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """For each value the first value that an equal operator computes from equal values: OpenVINO merges them."""
    same: dict[ir.Value, ir.Value] = {}
    known: dict[tuple, ir.Node] = {}
    for node in graph:
        attributes = tuple(sorted((name, str(found.value)) for name, found in node.attributes.items()))
        inputs = tuple(None if x is None else same.get(x, x) for x in node.inputs)
        first = known.setdefault((node.domain, node.op_type, attributes, inputs), node)
        same.update(zip(node.outputs, first.outputs, strict=True))
    return same


def _append_zeros(builder: Builder, node: ir.Node, count: int) -> None:
    sequences, weight = node.inputs[:2]
    assert sequences is not None
    if source_of(sequences) is not None:  # OpenVINO does not load padded integers
        sequences = insert_max(builder, sequences, before=node)
    kernel = constant(weight)
    pads = np.asarray([0, 0, 0, 0, 0, count], np.int64)
    node.replace_input_with(0, builder.insert("Pad", [sequences, pads], before=node))
    if kernel is None:  # dequantized: the runtime computes it once
        wider = builder.insert("Pad", [weight, pads], before=node)
    else:
        wider = builder.initializer(f"{layer_of(node)}/kernel", np.pad(kernel, [(0, 0), (0, 0), (0, count)]))
    node.replace_input_with(1, wider)
