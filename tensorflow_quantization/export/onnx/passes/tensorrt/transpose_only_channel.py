"""For TensorRT: the only channel of an image is moved by a Transpose, as several channels are.

    (N, height, width, 1) ── Reshape ── (N, 1, height, width)    →    the same, by a Transpose

The values are the same. Other passes move Transposes of inputs, and not Reshapes, after the quantizer. Measured with
TensorRT for RTX 1.7: one kernel less for an image of one channel, where another one padded its integers.
"""

from __future__ import annotations

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import constant, operand, shape_of


def transpose_only_channel(builder: Builder) -> int:
    """Replace Reshapes that move the only channel to the front by Transposes, and return their number."""
    changed = 0
    for reshape in [node for node in builder.graph if node.op_type == "Reshape"]:
        source, sizes = operand(reshape, 0), constant(operand(reshape, 1))
        before = shape_of(source)
        if source is None or sizes is None or before is None or len(before) < 3 or before[-1] != 1:
            continue
        spatial = [-1 if size is None else size for size in before[1:-1]]
        if sizes.tolist() not in ([0, 1, *spatial], [before[0], 1, *spatial]):
            continue
        (moved,) = reshape.outputs
        perm = [0, len(before) - 1, *range(1, len(before) - 1)]
        replace(moved, builder.insert("Transpose", [source], {"perm": perm}, before=reshape, like=moved))
        builder.graph.remove(reshape, safe=True)
        changed += 1
    return changed
