"""For OpenVINO: move the strides of 1x1 convolutions into a 1x1 MaxPool before them.

    Q ── DQ ── Conv 1x1, strides 2    →    Q ── DQ ── MaxPool 1x1, strides 2 ── Conv 1x1

If only such convolutions read a dequantized tensor, OpenVINO moves their strides before them, and computes in float. An
explicit MaxPool selects the same points and runs in integers.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import attribute, chains, name_of, readers

logger = logging.getLogger(__name__)


def strided_pointwise(builder: Builder) -> int:
    """Move strides into MaxPools, and return the number of MaxPools."""
    inserted = 0
    for _, dequantize in chains(builder.graph, "QuantizeLinear", "DequantizeLinear"):
        (floats,) = dequantize.outputs
        following = readers(floats)
        strides = [_pointwise_strides(reader) for reader in following]
        if not any(strides):
            continue
        if strides[0] is None or strides.count(strides[0]) != len(strides) or floats.is_graph_output():
            logger.debug("%s gets no MaxPool: its readers do not all have the same strides", name_of(dequantize))
            continue
        attributes = {"kernel_shape": [1] * len(strides[0]), "strides": strides[0]}
        pooled = builder.insert("MaxPool", [floats], attributes, after=dequantize)
        for reader in following:
            reader.replace_input_with(0, pooled)
            del reader.attributes["strides"]
        inserted += 1
    return inserted


def _pointwise_strides(node: ir.Node) -> list[int] | None:
    """The strides of a strided 1x1 convolution without pads and groups; `None` for any other node."""
    if node.op_type != "Conv" or attribute(node, "group", 1) != 1 or any(attribute(node, "pads", ())):
        return None
    kernel, strides = attribute(node, "kernel_shape", ()), attribute(node, "strides", ())
    only = set(kernel) == {1} and any(s > 1 for s in strides) and "auto_pad" not in node.attributes
    return list(strides) if only else None
