"""For ONNX Runtime: what scales and shifts the channels of an image before a quantizer is one BatchNormalization.

Its optimizer moves the arithmetic of single channels to channels last, for the convolution of integers behind it, and
there computes it with vectors of three numbers: a tenth of an EfficientNetB0. A BatchNormalization it leaves in place.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Chain, read_chain
from tensorflow_quantization.export.onnx.passes._graph import is_private, operand


def affine_as_batch_norm(builder: Builder) -> None:
    for quantize in list(builder.graph):
        last = operand(quantize, 0) if quantize.op_type == "QuantizeLinear" else None
        if last is None or last.shape is None or len(last.shape) != 4 or not isinstance(last.shape[1], int):
            continue
        chain = read_chain(last, axis=-3) if is_private(last) else Chain(last)
        varies = max(chain.factor.size, chain.shift.size) > 1  # a single number costs nothing
        if varies and all(node.op_type != "BatchNormalization" for node in chain.nodes):
            _replace(builder, quantize, chain)


def _replace(builder: Builder, quantize: ir.Node, chain: Chain) -> None:
    """Let `quantize` read one BatchNormalization in the place of the chain."""
    last = chain.nodes[0].outputs[0]
    assert last.shape is not None
    channels = last.shape[1]
    prefix = (chain.nodes[0].name or "").rsplit("/", 1)[0]
    weights = {"factor": chain.factor, "shift": chain.shift, "mean": np.zeros(1), "variance": np.ones(1)}
    constants = [
        builder.initializer(f"{prefix}/{name}", np.broadcast_to(array, channels).astype(np.float32))
        for name, array in weights.items()
    ]
    name = builder.unique(f"{prefix}/BatchNormalization")
    output = ir.Value(name=name, shape=last.shape, type=last.type)
    inputs = [chain.source, *constants]
    node = ir.node("BatchNormalization", inputs, {"epsilon": 0.0}, outputs=[output], name=name)
    builder.graph.insert_before(quantize, node)
    quantize.replace_input_with(0, output)
