"""For OpenVINO: an average pooling that counts its padding gets it from a Pad, quantized anew, before it.

    DQ(zero ≠ 0) ── AveragePool(pads, counted)    →    DQ ── Pad ── Q ── DQ ── AveragePool

OpenVINO pools the integers themselves and takes the zero point off afterwards. It pads with the integer 0, which stands
for zero only where the zero point is 0; elsewhere the averages at the borders are wrong. It also moves a Pad into the
pooling, unless quantizers are between the two.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_pair
from tensorflow_quantization.onnx_graph.queries import attribute, chains, constant, name_of, operand

logger = logging.getLogger(__name__)


def counted_padding(builder: Builder) -> int:
    """Returns how many poolings no longer pad themselves."""
    changed = 0
    for dequantize, pool in chains(builder.graph, "DequantizeLinear", "AveragePool"):
        pads = attribute(pool, "pads", ())
        if not attribute(pool, "count_include_pad", 0) or not any(pads):
            continue
        zero_point = constant(operand(dequantize, 2))
        if zero_point is None or not zero_point.any():
            logger.debug("%s pads itself: the integer 0 is zero", name_of(pool))
            continue
        _pad_before(builder, dequantize, pool, pads)
        changed += 1
    return changed


def _pad_before(builder: Builder, dequantize: ir.Node, pool: ir.Node, pads: tuple[int, ...]) -> None:
    begins, ends = np.reshape(pads, (2, -1))
    all_pads = np.concatenate([[0, 0], begins, [0, 0], ends]).astype(np.int64)
    padded = builder.insert("Pad", [operand(pool, 0), all_pads], before=pool)
    _, floats = insert_pair(builder, padded, dequantize.inputs[1:], before=pool)
    pool.replace_input_with(0, floats)
    del pool.attributes["pads"], pool.attributes["count_include_pad"]
