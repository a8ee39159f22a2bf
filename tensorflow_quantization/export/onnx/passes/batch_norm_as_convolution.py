"""For ONNX Runtime: a batch normalization between quantizers that no product takes in is a convolution of one point.

A BatchNormalization has no integer kernel; a convolution of each channel by itself has one. Its weights are the factors
of the normalization, each with a scale of its own, so that the integer 127 is the factor exactly.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Affine, read_batch_norm
from tensorflow_quantization.export.onnx.passes._graph import array, is_private, operand, producer, replace

_LARGEST = 127
#: The runtime writes a bias as an integer of 32 bits, at the scale of input times weight.
_LARGEST_BIAS = 2**30


def batch_norm_as_convolution(builder: Builder) -> None:
    for node in list(builder.graph):
        affine = read_batch_norm(node) if node.op_type == "BatchNormalization" else None
        dequantize = producer(affine.input, "DequantizeLinear") if affine is not None else None
        input_scale = array(operand(dequantize, 1)) if dequantize is not None else None
        if affine is None or input_scale is None or affine.output.shape is None or not _is_quantized(affine.output):
            continue
        spatial = len(affine.output.shape) - 2
        if spatial > 0:
            replace(affine.output, _convolution(builder, node, affine, float(input_scale), spatial))


def _is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear alone reads it, after a ReLU maybe."""
    for op_type in ("Relu", "Clip"):
        readers = value.consumers()
        if is_private(value) and readers[0].op_type == op_type:
            (value,) = readers[0].outputs
    return is_private(value) and value.consumers()[0].op_type == "QuantizeLinear"


def _convolution(builder: Builder, node: ir.Node, affine: Affine, input_scale: float, spatial: int) -> ir.Value:
    """What a convolution with `spatial` axes, put behind `node`, computes."""
    prefix = (node.name or "").rsplit("/", 1)[0]
    scale = np.maximum(np.abs(affine.factor) / _LARGEST, np.abs(affine.shift) / (input_scale * _LARGEST_BIAS))
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    integers = np.round(affine.factor / scale).astype(np.int8).reshape(-1, *[1] * (spatial + 1))
    constants = [
        builder.initializer(f"{prefix}/kernel_integers", integers),
        builder.initializer(f"{prefix}/kernel_scale", scale),
        builder.initializer(f"{prefix}/kernel_zero_point", np.zeros(len(scale), np.int8)),
    ]
    name = builder.unique(f"{prefix}/kernel/DequantizeLinear")
    kernel = ir.node("DequantizeLinear", constants, {"axis": 0}, outputs=[ir.Value(name=name)], name=name)
    bias = builder.initializer(f"{prefix}/bias", affine.shift.astype(np.float32))
    name = builder.unique(f"{prefix}/Conv")
    output = ir.Value(name=name, shape=affine.output.shape, type=affine.output.type)
    attributes = {"group": len(scale), "kernel_shape": [1] * spatial}
    convolution = ir.node("Conv", [affine.input, *kernel.outputs, bias], attributes, outputs=[output], name=name)
    builder.graph.insert_after(node, [kernel, convolution])
    return output
