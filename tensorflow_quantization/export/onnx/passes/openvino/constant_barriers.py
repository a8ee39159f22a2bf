"""For OpenVINO: keep constants of other axes than the units' apart from a matrix product.

    MatMul ── Mul([steps, 1])     →    MatMul ── Max(lowest float) ── Mul([steps, 1])
    MatMul ── Add([rows, 1, 1])   →    MatMul ── MaxPool 1x1 ── Add([rows, 1, 1])

Without them, OpenVINO 2026.4 applies the constants to the wrong axis, or does not load the file (see
`misplaced_constants`). The pass runs for files without a target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_barrier, insert_max_between
from tensorflow_quantization.onnx_graph.affine import data_of
from tensorflow_quantization.onnx_graph.misplaced_constants import is_taken_for_units, misplaced_constants
from tensorflow_quantization.onnx_graph.queries import shape_of


def constant_barriers(builder: Builder) -> int:
    """Insert what keeps them apart, and return their number."""
    changed = 0
    for _, node in misplaced_constants(list(builder.graph)):
        value = data_of(node)
        assert value is not None
        if is_taken_for_units(node):
            rank = len(shape_of(value) or ()) - 2
            apart = insert_barrier(builder, value, rank, for_readers=False)
            node.replace_input_with(list(node.inputs).index(value), apart)
        else:
            insert_max_between(builder, node)
        changed += 1
    return changed
