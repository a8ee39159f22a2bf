"""For ONNX Runtime: a factor of a model's input goes into the quantizer behind it, as x * f / s is x / (s / f).

So images that a `Rescaling` layer scales are quantized as they are. What dequantizes has the scale that it had. Within
the model, as in front of the product of queries and keys, another scale would keep kernels from being merged.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import read_chain
from tensorflow_quantization.export.onnx.passes._graph import array, is_private, operand, producer


def scaling_into_quantizers(builder: Builder) -> None:
    for quantize in list(builder.graph):
        scaled = operand(quantize, 0) if quantize.op_type == "QuantizeLinear" else None
        scale = array(operand(quantize, 1)) if scaled is not None else None
        if scaled is None or scale is None or scale.size > 1 or not is_private(scaled):
            continue
        # Images are stored channels first here.
        chain = read_chain(scaled, axis=-3 if scaled.shape is not None and len(scaled.shape) == 4 else -1)
        factor = chain.factor[0]
        uniform = np.all(chain.factor == factor) and not chain.shift.any()
        if chain.nodes and uniform and factor > 0 and _is_input(chain.source):
            divided = (scale.astype(np.float64) / factor).astype(scale.dtype)
            quantize.replace_input_with(0, chain.source)
            quantize.replace_input_with(1, builder.initializer(f"{quantize.name}/scale", divided))


def _is_input(value: ir.Value) -> bool:
    """Whether this is an input of the model, in another layout or dtype maybe."""
    while (node := producer(value, "Transpose", "Reshape", "Cast")) is not None and (before := operand(node, 0)):
        value = before
    return value.is_graph_input()
