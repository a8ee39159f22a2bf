"""Removes nodes and constants that nothing reads."""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder


def remove_dead_code(builder: Builder) -> None:
    graph = builder.graph
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
