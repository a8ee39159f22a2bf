"""For OpenVINO: keep the readers of a product of integers without a bias apart from it.

    DQ ── Conv ── Relu …  Add    →    DQ ── Conv ── Max(lowest float) ── Relu …  Add

Without the Max, OpenVINO 2026.4 loses the scales of the product (see `lost_scales`). The pass runs for files without a
target, too: they may run in OpenVINO.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import insert_max_after
from tensorflow_quantization.onnx_graph.lost_scales import lost_scales


def product_barriers(builder: Builder) -> int:
    """Insert the Maxima, and return their number."""
    found = [product for product, _ in lost_scales(builder.graph)]
    for product in found:
        insert_max_after(builder, product)
    return len(found)
