"""For ONNX Runtime: a batch normalization between quantizers that no product takes in is a convolution of one point.

    DQ ── BatchNormalization(f, s) ── [Relu] ── Q    →    DQ ── Conv(DQ(f), s, group = channels) ── [Relu] ── Q

A BatchNormalization has no integer kernel; a convolution of each channel by itself has one. Its weights are the factors
of the normalization, each with a scale of its own, so that the integer 127 is the factor exactly.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Affine, read_batch_norm
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import chains, constant, layer_of, name_of, only_reader, operand

logger = logging.getLogger(__name__)

_LARGEST = 127
#: The runtime writes a bias as an integer of 32 bits, at the scale of input times weight.
_LARGEST_BIAS = 2**30


def batch_norm_as_convolution(builder: Builder) -> int:
    """Returns how many normalizations became convolutions."""
    changed = 0
    for dequantize, node in chains(builder.graph, "DequantizeLinear", "BatchNormalization"):
        affine, scale = read_batch_norm(node), constant(operand(dequantize, 1))
        if affine is None or scale is None:
            continue
        spatial = 0 if affine.output.shape is None else len(affine.output.shape) - 2
        if spatial <= 0 or not _is_quantized(affine.output):
            reason = "its output is not quantized" if spatial > 0 else "it has no known axes besides the channels"
            logger.debug("%s stays in float: %s", name_of(node), reason)
            continue
        replace(affine.output, _convolution(builder, node, affine, float(scale), spatial))
        changed += 1
    return changed


def _is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear alone reads it, after a ReLU maybe."""
    for op_type in ("Relu", "Clip"):
        limiting = only_reader(value, op_type)
        value = value if limiting is None else limiting.outputs[0]
    return only_reader(value, "QuantizeLinear") is not None


def _convolution(builder: Builder, node: ir.Node, affine: Affine, input_scale: float, spatial: int) -> ir.Value:
    """The output of a convolution with `spatial` axes that computes what `node` does."""
    prefix = layer_of(node)
    scale = np.maximum(np.abs(affine.factor) / _LARGEST, np.abs(affine.shift) / (input_scale * _LARGEST_BIAS))
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    integers = np.round(affine.factor / scale).astype(np.int8).reshape(-1, *[1] * (spatial + 1))
    constants = [
        builder.initializer(f"{prefix}/kernel_integers", integers),
        builder.initializer(f"{prefix}/kernel_scale", scale),
        builder.initializer(f"{prefix}/kernel_zero_point", np.zeros(len(scale), np.int8)),
    ]
    kernel = builder.insert(
        "DequantizeLinear", constants, {"axis": 0}, before=node, name=f"{prefix}/kernel/DequantizeLinear"
    )
    bias = builder.initializer(f"{prefix}/bias", affine.shift.astype(np.float32))
    attributes = {"group": len(scale), "kernel_shape": [1] * spatial}
    return builder.insert("Conv", [affine.input, kernel, bias], attributes, before=node, like=affine.output)
