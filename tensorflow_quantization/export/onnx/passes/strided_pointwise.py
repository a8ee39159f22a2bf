"""For OpenVINO: strides before convolutions of one point become a MaxPool of one point.

Where nothing else reads a dequantized tensor, OpenVINO itself moves such strides before the convolutions, but in float;
a MaxPool of its own stays in integers. It picks the same points.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import integer, ints, producer


def strided_pointwise(builder: Builder) -> None:
    for node in list(builder.graph):
        if node.op_type != "DequantizeLinear" or producer(node.inputs[0], "QuantizeLinear") is None:
            continue
        (floats,) = node.outputs
        readers = [use.node for use in floats.uses()]
        strides = [_pointwise_strides(reader) for reader in readers]
        if not readers or strides[0] is None or strides.count(strides[0]) != len(strides) or floats.is_graph_output():
            continue
        name = builder.unique(f"{(node.name or '').rsplit('/', 1)[0]}/MaxPool")
        attributes = {"kernel_shape": [1] * len(strides[0]), "strides": strides[0]}
        pool = ir.node("MaxPool", [floats], attributes, outputs=[ir.Value(name=name)], name=name)
        builder.graph.insert_after(node, pool)
        for reader in readers:
            reader.replace_input_with(0, pool.outputs[0])
            del reader.attributes["strides"]


def _pointwise_strides(node: ir.Node) -> list[int] | None:
    """The strides of a convolution of one point that has some and nothing else."""
    if node.op_type != "Conv" or integer(node, "group", 1) != 1 or any(ints(node, "pads") or []):
        return None
    kernel, strides = ints(node, "kernel_shape") or [], ints(node, "strides") or []
    return strides if set(kernel) == {1} and any(s > 1 for s in strides) and "auto_pad" not in node.attributes else None
