"""For OpenVINO: a quantizer behind a Reshape goes before it, so that the kernel before the Reshape writes integers.

OpenVINO computes a quantizer along with the kernel that makes its input, but not through a Reshape: that of a global
pooling, which writes floats then.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import is_private, operand, producer, replace


def quantize_before_reshape(builder: Builder) -> None:
    graph = builder.graph
    for quantize in list(graph):
        reshape = producer(operand(quantize, 0), "Reshape") if quantize.op_type == "QuantizeLinear" else None
        source = operand(reshape, 0) if reshape is not None else None
        if reshape is None or source is None or source.producer() is None or not is_private(reshape.outputs[0]):
            continue
        (integers,) = quantize.outputs
        readers = integers.consumers()
        if len(readers) != 1 or readers[0].op_type != "DequantizeLinear" or integers.is_graph_output():
            continue
        (floats,) = readers[0].outputs
        quantize.replace_input_with(0, source)
        replace(floats, reshape.outputs[0])
        reshape.replace_input_with(0, floats)
        graph.remove(reshape)
        graph.insert_after(readers[0], reshape)
        # A shape without a type would be left out of the file, with a warning.
        integers.shape = None
        if source.shape is not None and source.type is not None:
            floats.shape, floats.type = source.shape, source.type
        else:
            floats.shape = None
