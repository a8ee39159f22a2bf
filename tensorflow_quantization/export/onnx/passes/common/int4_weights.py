"""For ONNX Runtime and OpenVINO: store weights of 2 to 4 bits as INT4, two in a byte.

    int8 W ── DQ ── Conv    →    int4 W ── Cast(int8) ── DQ ── Conv

Both runtimes compute the Cast once, when they load the file, and use the same integer kernels as before. Without the
Cast, they compute in float. INT4 needs opset 21, and the Cast needs ONNX Runtime 1.23.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import constant, is_dequantize

logger = logging.getLogger(__name__)

_OPSET = 21


def int4_weights(builder: Builder) -> int:
    """Store weights as INT4, and return their number."""
    changed = 0
    for weight in list(builder.graph.initializers.values()):
        integers, uses = constant(weight), weight.uses()
        is_weight = uses and all(use.idx == 0 and is_dequantize(use.node) for use in uses)
        if not is_weight or integers is None or integers.dtype != np.int8:
            continue
        reason = _why_not(builder, weight.name or "", integers)
        if reason:
            logger.debug("%s stays int8: %s", weight.name, reason)
            continue
        builder.require(_OPSET, "An INT4 weight")
        packed = builder.initializer(f"{weight.name}_int4", integers.astype(ir.DataType.INT4.numpy()))
        first = next(node for node in builder.graph if weight in node.inputs)
        cast = {"to": ir.DataType.INT8.value}
        replace(weight, builder.insert("Cast", [packed], cast, before=first, name=f"{weight.name}/Cast", like=weight))
        changed += 1
    return changed


def _why_not(builder: Builder, name: str, integers: np.ndarray) -> str | None:
    # Zeros have any number of bits, so they do not say what the user chose.
    if integers.min(initial=0) < -8 or integers.max(initial=0) > 7 or not integers.any():
        return "its integers have more than 4 bits, or are all zero"
    if not builder.permits(_OPSET):
        return f"the opset that the user set is older than {_OPSET}"
    cast = onnx.helper.make_node("Cast", [name], [name], name, to=onnx.TensorProto.INT8)
    return "the Cast takes more bytes than INT4 saves" if cast.ByteSize() > integers.size // 2 else None
