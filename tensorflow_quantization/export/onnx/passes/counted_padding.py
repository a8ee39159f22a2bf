"""For OpenVINO: an average pooling that counts its padding gets it from a Pad, quantized anew, before it.

OpenVINO pools the integers themselves and takes the zero point off afterwards. What it pads with is the integer 0,
which stands for zero only where that is the zero point; elsewhere the averages at the borders are wrong. It also moves
a Pad into the pooling, unless quantizers are between the two.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, integer, ints, operand, producer, quantizer_pair


def counted_padding(builder: Builder) -> None:
    for node in list(builder.graph):
        if node.op_type != "AveragePool" or not integer(node, "count_include_pad", 0):
            continue
        pads, x = ints(node, "pads") or [], operand(node, 0)
        dequantize = producer(x, "DequantizeLinear")
        if x is None or dequantize is None or not any(pads):
            continue
        zero_point = array(operand(dequantize, 2))
        if zero_point is None or not zero_point.any():
            continue
        begins, ends = np.reshape(pads, (2, -1))
        name = builder.unique(f"{(node.name or '').rsplit('/', 1)[0]}/Pad")
        all_pads = builder.constant(np.concatenate([[0, 0], begins, [0, 0], ends]).astype(np.int64))
        pad = ir.node("Pad", [x, all_pads], outputs=[ir.Value(name=name)], name=name)
        pair = quantizer_pair(builder, pad.outputs[0], dequantize.inputs[1:])
        builder.graph.insert_before(node, [pad, *pair])
        node.replace_input_with(0, pair[1].outputs[0])
        del node.attributes["pads"], node.attributes["count_include_pad"]
