"""Remove nodes and constants that nothing reads.

x ─┬─ Relu ── output        x ── Relu ── output
   └─ Mul               →
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder


def remove_dead_code(builder: Builder) -> int:
    """Remove dead nodes, in reverse order, then dead constants.

    Returns:
        The number of removed nodes and constants.
    """
    graph, removed = builder.graph, 0
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
            removed += 1
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
            removed += 1
    return removed
