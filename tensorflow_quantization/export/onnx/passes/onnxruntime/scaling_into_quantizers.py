"""For ONNX Runtime: fold a factor of a model input into the quantizer after it, as x f / s = x / (s / f).

    input ── Mul(f) ── Q(s) ── DQ(s)    →    input ── Q(s / f) ── DQ(s)

So the images before a `Rescaling` layer are quantized directly. The scale of the DequantizeLinear does not change.
Inside the model, for example before the product of queries and keys, a pair with two scales would prevent fusions.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Chain, read_chain
from tensorflow_quantization.onnx_graph.operators import RELAYING
from tensorflow_quantization.onnx_graph.queries import constant, is_private, name_of, operand, producer

logger = logging.getLogger(__name__)


def scaling_into_quantizers(builder: Builder) -> int:
    """Fold factors into quantizers, and return the number of quantizers."""
    changed = 0
    for quantize in [node for node in builder.graph if node.op_type == "QuantizeLinear"]:
        scaled, scale = operand(quantize, 0), constant(operand(quantize, 1))
        if scaled is None or scale is None or scale.size > 1:
            continue
        # Images are channels first in the exported graph.
        chain = read_chain(scaled, axis=-3 if scaled.shape is not None and len(scaled.shape) == 4 else -1)
        if not chain.nodes:
            continue
        reason = _why_not(chain, scaled)
        if reason:
            logger.debug("%s is not folded into %s: %s", name_of(chain.nodes[0]), name_of(quantize), reason)
            continue
        divided = (scale.astype(np.float64) / chain.factor[0]).astype(scale.dtype)
        quantize.replace_input_with(0, chain.source)
        quantize.replace_input_with(1, builder.initializer(f"{quantize.name}/scale", divided))
        changed += 1
    return changed


def _why_not(chain: Chain, scaled: ir.Value) -> str | None:
    if not is_private(scaled):
        return "not only the quantizer reads it"
    if not _is_input(chain.source):
        return "its source is not a model input"
    if chain.shift.any():
        return "it adds something"
    uniform = np.all(chain.factor == chain.factor[0])
    return None if uniform and chain.factor[0] > 0 else "it is not one positive factor for all channels"


def _is_input(value: ir.Value) -> bool:
    """Whether `value` is a model input, perhaps in another layout or dtype."""
    while (node := producer(value, *RELAYING)) is not None and (before := operand(node, 0)):
        value = before
    return value.is_graph_input()
