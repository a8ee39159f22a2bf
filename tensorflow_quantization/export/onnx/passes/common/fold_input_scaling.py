"""Fold factors and shifts per channel into the convolutions and matrix products that read the channels.

    x ── Mul(f) ── Add(s) ─┬─ Conv(W, b)           x ─┬─ Conv(f W, b + sum of s W)
                           └─ Conv(V, c)      →       └─ Conv(f V, c + sum of s V)

    x ── Mul(f) ── Add(s) ── Conv(W, b, pads)  →  x ── Add(s / f) ── Conv(f W, b, pads)

This removes a BatchNormalization, Rescaling or Normalization before a convolution. If the convolution pads, the shift
has to stay, as one Add: the convolution pads with zeros after the shift. The factors are folded all the same. A large
shift stays, too: float32 would round the large products that the bias has to cancel.

Only float weights are changed: integers with one scale per output channel cannot hold a factor per input channel. The
pass does not look through quantizers, which round and saturate between the two.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Chain, read_chain
from tensorflow_quantization.export.onnx.passes._linear import Linear, read_linear, set_bias
from tensorflow_quantization.export.onnx.passes._rewriting import replace
from tensorflow_quantization.onnx_graph.queries import attribute, name_of, producer

logger = logging.getLogger(__name__)

#: The largest shift that is folded into the bias: for activations around 1, the rounding error is below 2**-15.
_LARGEST_SHIFT = 2.0**8


def fold_input_scaling(builder: Builder) -> int:
    """Fold chains of affine operators into the linear operators that read them, and return the number of chains."""
    removed: set[ir.Node] = set()
    folded = 0
    for node in reversed(list(builder.graph)):
        linears = _find_readers(node.outputs[0]) if node not in removed else []
        chain = read_chain(node.outputs[0], linears[0].channel_axis) if linears else None
        if chain is None or not chain.nodes:
            continue
        adds = _has_to_add(chain, linears)
        reason = _why_not(chain, linears, adds)
        if reason:
            logger.debug("%s is not folded into %s: %s", name_of(node), name_of(linears[0].node), reason)
            continue
        source, shift = chain.source, chain.shift
        if adds:
            source, shift = _add(builder, chain, linears[0].channel_axis), np.zeros(1)
        for linear in linears:
            _scale_inputs(builder, linear, chain.factor, shift)
        replace(node.outputs[0], source)
        builder.graph.remove(chain.nodes, safe=True)
        removed.update(chain.nodes)
        folded += 1
    return folded


def _has_to_add(chain: Chain, linears: list[Linear]) -> bool:
    """Whether the shift has to stay before the products."""
    return bool(chain.shift.any() and (np.abs(chain.shift).max() > _LARGEST_SHIFT or any(map(_pads, linears))))


def _why_not(chain: Chain, linears: list[Linear], adds: bool) -> str | None:
    """Why the chain is not folded into the products; `None` if it can be, with a gain."""
    if _ends_function(chain):
        return "it may end a GELU or a layer normalization, which runtimes fuse into one kernel"
    if not _spans_channels(chain, linears):
        return "its input may have fewer channels"
    if adds and len(chain.nodes) == 1:
        return "one Add would have to stay, so nothing is gained"
    if adds and not chain.factor.all():
        return "a factor is zero, and an Add would have to stay"
    return None


def _find_readers(value: ir.Value) -> list[Linear]:
    """The linear operators with float weights that read `value`; an empty list if any other node reads it."""
    linears = [read_linear(use.node) if use.idx == 0 else None for use in value.uses()]
    found = [x for x in linears if x is not None and x.is_float and x.node.op_type != "ConvTranspose"]
    alike = len({linear.channel_axis for linear in found}) == 1
    return found if alike and len(found) == len(linears) and not value.is_graph_output() else []


def _ends_function(chain: Chain) -> bool:
    """Whether the chain may be the end of a GELU or a layer normalization, which runtimes fuse into one kernel.

    Both end with a product of two tensors that is scaled by a constant.
    """
    return producer(chain.source, "Mul", "Div") is not None and chain.nodes[-1].op_type != "BatchNormalization"


def _spans_channels(chain: Chain, linears: list[Linear]) -> bool:
    """Whether the source has all the channels that the products read; the chain may broadcast a single channel."""
    axis, channels = linears[0].channel_axis, _input_channels(linears[0])
    if chain.factor.size == chain.shift.size == 1:
        return True
    shape = chain.source.shape
    return shape is not None and len(shape) >= -axis and shape[axis] == channels


def _input_channels(linear: Linear) -> int:
    if linear.node.op_type == "Conv":
        return linear.weight.shape[1] * attribute(linear.node, "group", 1)
    return linear.weight.shape[0]


def _pads(linear: Linear) -> bool:
    return any(attribute(linear.node, "pads", ())) or "auto_pad" in linear.node.attributes


def _add(builder: Builder, chain: Chain, axis: int) -> ir.Value:
    """The source plus shift / factor, so that only the factor is left to fold."""
    shift = np.broadcast_to(chain.shift / chain.factor, np.broadcast_shapes(chain.shift.shape, chain.factor.shape))
    numbers = shift.reshape((-1, *[1] * (-axis - 1)) if shift.size > 1 else ()).astype(np.float32)
    return builder.insert("Add", [chain.source, numbers], before=chain.nodes[0], like=chain.source)


def _scale_inputs(builder: Builder, linear: Linear, factor: np.ndarray, shift: np.ndarray) -> None:
    """Change weight and bias so that the operator returns for x what it returned for x * factor + shift."""
    factor, shift = (_like_weight(linear, np.broadcast_to(x, _input_channels(linear))) for x in (factor, shift))
    value = linear.node.inputs[1]
    assert value is not None
    scaled = (linear.weight * factor).astype(np.float32)
    summed = tuple(i for i in range(linear.weight.ndim) if i != linear.axis)
    added = (linear.weight * shift).sum(summed)
    linear.node.replace_input_with(1, builder.shared_initializer(f"{value.name}_folded", scaled))
    if added.any():
        bias = added if linear.bias is None else linear.bias + added
        set_bias(builder, linear, bias.astype(np.float32))


def _like_weight(linear: Linear, channels: np.ndarray) -> np.ndarray:
    """Numbers per input channel, in a shape that broadcasts with the weight."""
    if linear.node.op_type != "Conv":
        return channels[:, None]
    groups = channels.reshape(attribute(linear.node, "group", 1), -1)
    rows = np.repeat(groups, linear.channels // len(groups), axis=0)
    return rows.reshape(*rows.shape, *[1] * (linear.weight.ndim - 2))
