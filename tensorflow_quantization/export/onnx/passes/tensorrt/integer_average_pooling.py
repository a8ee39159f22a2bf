"""For TensorRT: an average pooling between quantizers that pads nothing counts its padding.

    DQ ── AveragePool    →    DQ ── AveragePool(count_include_pad=1)

The values are the same. TensorRT has an integer kernel only for averages of a fixed number of values, and does not see
that nothing is padded: with a 2x2 pooling of 32x32x16 values, the engine moves 262 kB of floats instead of 426 kB.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.onnx_graph.queries import attribute, chains


def integer_average_pooling(builder: Builder) -> int:
    """Let average poolings without padding count it, and return the number of poolings."""
    changed = 0
    for _, pool in chains(builder.graph, "DequantizeLinear", "AveragePool"):
        # With auto_pad, the padding depends on a size that is not known.
        padded = any(attribute(pool, "pads", ())) or "auto_pad" in pool.attributes
        if padded or attribute(pool, "count_include_pad", 0):
            continue
        pool.attributes.add(ir.AttrInt64("count_include_pad", 1))
        changed += 1
    return changed
