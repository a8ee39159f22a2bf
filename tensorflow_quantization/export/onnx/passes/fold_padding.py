"""Folds a Pad with zeros into the convolution or pooling that reads it, also through Clip, Q and DQ.

Exact everywhere: zero is quantized exactly; a convolution pads with zeros itself; an average pooling that counts its
padding does; a max pooling pads with minus infinity, which is as good as zero if nothing is negative.
"""

from __future__ import annotations

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._graph import array, integer, ints, is_private, operand, producer
from tensorflow_quantization.export.onnx.passes.nonnegative import find_nonnegative

#: Where verification finds what a QuantizeLinear no longer sees: pads of its output, in ONNX' form.
FOLDED_PADS = "folded_pads"


def fold_padding(builder: Builder) -> None:
    nonnegative = find_nonnegative(builder.graph)
    for node in list(builder.graph):
        if node.op_type not in ("Conv", "AveragePool", "MaxPool") or "auto_pad" in node.attributes:
            continue
        chain = _chain_to_pad(node)
        pad = producer(operand(chain[-1], 0), "Pad")
        pads = _zero_pads(pad) if pad is not None else None
        if pad is None or pads is None or not _is_exact(node, pads, operand(pad, 0) in nonnegative):
            continue
        spatial = len(pads) // 2 - 2
        added = pads[2 : 2 + spatial] + pads[4 + spatial :]
        own = ints(node, "pads") or [0] * len(added)
        node.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, added, strict=True)])
        if node.op_type == "AveragePool":
            node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        chain[-1].replace_input_with(0, operand(pad, 0))
        for link in chain[1:]:
            link.outputs[0].shape = None  # that of what was padded
            if link.op_type == "QuantizeLinear":
                link.outputs[0].meta[FOLDED_PADS] = pads
        if not pad.outputs[0].uses() and not pad.outputs[0].is_graph_output():
            builder.graph.remove(pad, safe=True)  # now: to the passes that follow it would be a reader


def _chain_to_pad(node: ir.Node) -> list[ir.Node]:
    """The node, and what quantizes its input, last the one that may read a Pad."""
    chain = [node]
    for op_type in ("DequantizeLinear", "QuantizeLinear", "Clip"):
        source = operand(chain[-1], 0)
        link = producer(source, op_type)
        if link is None or source is None or not is_private(source):
            break
        chain.append(link)
    return chain


def _zero_pads(pad: ir.Node) -> list[int] | None:
    """The pads, if they are constant, not negative, of spatial axes, and zeros."""
    pads, value, mode = array(operand(pad, 1)), array(operand(pad, 2)), pad.attributes.get("mode")
    if pads is None or (pads < 0).any() or operand(pad, 3) is not None:
        return None
    if (mode is not None and mode.as_string() != "constant") or (operand(pad, 2) is not None and value != 0):
        return None
    begins, ends = pads.reshape(2, -1)
    return pads.tolist() if len(begins) > 2 and not begins[:2].any() and not ends[:2].any() else None


def _is_exact(node: ir.Node, pads: list[int], nonnegative: bool) -> bool:
    if node.op_type == "Conv":
        return True
    if integer(node, "ceil_mode", 0):
        return False
    kernel, rank = ints(node, "kernel_shape") or [], len(pads) // 2
    within = all(pads[axis] < k and pads[rank + axis] < k for axis, k in enumerate(kernel, start=2))
    if node.op_type == "AveragePool":
        return within and not any(ints(node, "pads") or [])
    return within and nonnegative and not any(ints(node, "pads") or [])
