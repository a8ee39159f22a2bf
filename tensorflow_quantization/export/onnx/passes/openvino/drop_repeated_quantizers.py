"""For OpenVINO: remove a Q/DQ pair after a MaxPool if the pair before it has the same scale and zero point.

    DQ ── MaxPool ── Q ── DQ    →    DQ ── MaxPool

OpenVINO runs the MaxPool in integers without the second pair. With a zero point, it would run the second quantizer as a
separate kernel.
"""

from __future__ import annotations

import logging

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.quantization import same_parameters
from tensorflow_quantization.onnx_graph.queries import chains, name_of

logger = logging.getLogger(__name__)


def drop_repeated_quantizers(builder: Builder) -> int:
    """Remove repeated pairs, and return their number."""
    dropped = 0
    pattern = ("DequantizeLinear", "MaxPool", "QuantizeLinear", "DequantizeLinear")
    for before, pool, quantize, dequantize in chains(builder.graph, *pattern):
        if not same_parameters(before, quantize):
            logger.debug("%s stays: %s has another scale or zero point", name_of(quantize), name_of(before))
            continue
        replace(dequantize.outputs[0], pool.outputs[0])
        dropped += 1
    return dropped
