"""Fold a Pad with zeros into the convolution or pooling that reads it.

    x ── Pad ── [Clip] ── [Q ── DQ] ── Conv(pads)    →    x ── [Clip] ── [Q ── DQ] ── Conv(pads + Pad)

The fold is exact: a quantizer keeps zero; a convolution pads with zeros, and so does an average pooling that counts its
padding; a max pooling pads with minus infinity, which returns the same maximum as zero if no value is negative.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.metadata import FOLDED_PADS
from tensorflow_quantization.export.onnx.passes._nonnegative import find_nonnegative
from tensorflow_quantization.onnx_graph.queries import attribute, constant, is_private, name_of, operand, producer

logger = logging.getLogger(__name__)

_READERS = ("Conv", "AveragePool", "MaxPool")


def fold_padding(builder: Builder) -> int:
    """Fold Pads into convolutions and poolings, and return the number of folds."""
    nonnegative, folded = find_nonnegative(builder.graph), 0
    for node in [node for node in builder.graph if node.op_type in _READERS]:
        chain = _chain_to_pad(node)
        pad = producer(operand(chain[-1], 0), "Pad")
        if pad is None:
            continue
        reason = _why_not(node, pad, operand(pad, 0) in nonnegative)
        if reason:
            logger.debug("%s keeps its Pad %s: %s", name_of(node), name_of(pad), reason)
            continue
        _fold(builder, pad, chain)
        folded += 1
    return folded


def _chain_to_pad(node: ir.Node) -> list[ir.Node]:
    """The node and the Clip, QuantizeLinear and DequantizeLinear before it; the last in the list may read a Pad."""
    chain = [node]
    for op_type in ("DequantizeLinear", "QuantizeLinear", "Clip"):
        source = operand(chain[-1], 0)
        link = producer(source, op_type)
        if link is None or source is None or not is_private(source):
            break
        chain.append(link)
    return chain


def _pads(pad: ir.Node) -> list[int]:
    """The constant pads, begins before ends; an empty list if the graph computes them."""
    pads = constant(operand(pad, 1))
    return [] if pads is None else pads.tolist()


def _why_not(node: ir.Node, pad: ir.Node, nonnegative: bool) -> str | None:
    """Why the Pad `pad` cannot be folded into `node`; `None` if it can."""
    pads, value = _pads(pad), constant(operand(pad, 2))
    rank = len(pads) // 2
    if rank <= 2 or min(pads) < 0 or operand(pad, 3) is not None:
        return "its pads are not constant, or negative, or for some axes only"
    if attribute(pad, "mode", "constant") != "constant" or (operand(pad, 2) is not None and value != 0):
        return "it does not pad with zero"
    if any(pads[:2]) or any(pads[rank : rank + 2]):
        return "it pads the batch or the channels"
    if "auto_pad" in node.attributes:
        return "the node has auto_pad"
    if node.op_type == "Conv":
        return None
    kernel, own = attribute(node, "kernel_shape", ()), attribute(node, "pads", ())
    if attribute(node, "ceil_mode", 0) or any(own):
        return "the pooling pads, too"
    if any(pads[axis] >= k or pads[rank + axis] >= k for axis, k in enumerate(kernel, start=2)):
        return "a window would see padding only"
    return None if node.op_type == "AveragePool" or nonnegative else "the maximum may be negative"


def _fold(builder: Builder, pad: ir.Node, chain: list[ir.Node]) -> None:
    """Add the pads to the first node of the chain, and connect the last node to the input of the Pad."""
    node, pads = chain[0], _pads(pad)
    spatial = len(pads) // 2 - 2
    added = pads[2 : 2 + spatial] + pads[4 + spatial :]
    own = attribute(node, "pads", [0] * len(added))
    node.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, added, strict=True)])
    if node.op_type == "AveragePool":
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    chain[-1].replace_input_with(0, operand(pad, 0))
    for link in chain[1:]:
        link.outputs[0].shape = None  # the old shape includes the padding
        if link.op_type == "QuantizeLinear":
            link.outputs[0].meta[FOLDED_PADS] = pads
    if not pad.outputs[0].uses() and not pad.outputs[0].is_graph_output():
        builder.graph.remove(pad, safe=True)  # now: the next passes would count it as a reader
