"""For OpenVINO: replace the pads of an average pooling that counts its padding by a Pad and a Q/DQ pair.

    DQ(zero ≠ 0) ── AveragePool(pads, counted)    →    DQ ── Pad ── Q ── DQ ── AveragePool

OpenVINO averages the integers, and subtracts the zero point afterwards. It pads with the integer 0, which stands for
zero only if the zero point is 0; otherwise, the averages at the borders are wrong. It also fuses a Pad into the
pooling, unless quantizers lie between the two.
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
    """Move the pads of average poolings to Pads, and return the number of poolings."""
    changed = 0
    for dequantize, pool in chains(builder.graph, "DequantizeLinear", "AveragePool"):
        pads = attribute(pool, "pads", ())
        if not attribute(pool, "count_include_pad", 0) or not any(pads):
            continue
        zero_point = constant(operand(dequantize, 2))
        if zero_point is None or not zero_point.any():
            logger.debug("%s keeps its pads: its zero point is 0", name_of(pool))
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
