"""For ONNX Runtime: replace a BatchNormalization between quantizers by a depthwise 1x1 convolution.

    DQ ── BatchNormalization(f, s) ── [Relu] ── Q    →    DQ ── Conv(DQ(f), s, group = channels) ── [Relu] ── Q

BatchNormalization has no integer kernel; a depthwise convolution has one. Its weights are the factors of the
BatchNormalization, quantized per channel, so that the integer 127 stands for the factor exactly.
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
#: ONNX Runtime quantizes the bias to int32, in steps of input scale times weight scale.
_LARGEST_BIAS = 2**30


def batch_norm_as_convolution(builder: Builder) -> int:
    """Replace BatchNormalizations by convolutions, and return their number."""
    changed = 0
    for dequantize, node in chains(builder.graph, "DequantizeLinear", "BatchNormalization"):
        affine, scale = read_batch_norm(node), constant(operand(dequantize, 1))
        if affine is None or scale is None:
            continue
        spatial = 0 if affine.output.shape is None else len(affine.output.shape) - 2
        if spatial <= 0 or not _is_quantized(affine.output):
            reason = "its output is not quantized" if spatial > 0 else "the axes besides the channels are not known"
            logger.debug("%s stays in float: %s", name_of(node), reason)
            continue
        replace(affine.output, _convolution(builder, node, affine, float(scale), spatial))
        changed += 1
    return changed


def _is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear is the only reader of `value`, directly or after a Relu or Clip."""
    for op_type in ("Relu", "Clip"):
        limiting = only_reader(value, op_type)
        value = value if limiting is None else limiting.outputs[0]
    return only_reader(value, "QuantizeLinear") is not None


def _convolution(builder: Builder, node: ir.Node, affine: Affine, input_scale: float, spatial: int) -> ir.Value:
    """The output of a convolution with `spatial` spatial axes that computes the same as `node`."""
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
