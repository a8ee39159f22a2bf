"""Folds factors and sums of channels into the convolutions and matrix products that read them.

So the batch normalization, Rescaling or Normalization before a convolution vanishes. A convolution pads with zeros
after them, so where it pads, what is added to the channels has to stay, as one Add; the factors go into its weight all
the same. Likewise where much is added: what is subtracted has to be gone before float32 rounds products of it.

Only into float weights: integers of one scale an output channel cannot take up a factor an input channel. And never
through a quantizer, which rounds and saturates between the two.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes._affine import Chain, read_chain
from tensorflow_quantization.export.onnx.passes._graph import integer, ints, replace
from tensorflow_quantization.export.onnx.passes._linear import Linear, read_linear, set_bias

#: The most that is added in the weights' place: of activations around 1, this rounds off less than 2**-15.
_LARGEST_SHIFT = 2.0**8


def fold_input_scaling(builder: Builder) -> None:
    removed: set[ir.Node] = set()
    for node in reversed(list(builder.graph)):
        readers = _find_readers(node.outputs[0]) if node not in removed else []
        chain = read_chain(node.outputs[0], readers[0].channel_axis) if readers else None
        if chain is None or not chain.nodes or _ends_function(chain) or not _spans_channels(chain, readers):
            continue
        source, shift = chain.source, chain.shift
        if shift.any() and (np.abs(shift).max() > _LARGEST_SHIFT or any(map(_pads, readers))):
            if len(chain.nodes) == 1 or not chain.factor.all():
                continue
            source, shift = _add(builder, chain, readers[0].channel_axis), np.zeros(1)
        for reader in readers:
            _scale_inputs(builder, reader, chain.factor, shift)
        replace(node.outputs[0], source)
        builder.graph.remove(chain.nodes, safe=True)
        removed.update(chain.nodes)


def _find_readers(value: ir.Value) -> list[Linear]:
    """The operators with float weights that read `value` as their data; none if something else reads it too."""
    readers = [read_linear(use.node) if use.idx == 0 else None for use in value.uses()]
    found = [r for r in readers if r is not None and r.is_float and r.node.op_type != "ConvTranspose"]
    alike = len({reader.channel_axis for reader in found}) == 1
    return found if alike and len(found) == len(readers) and not value.is_graph_output() else []


def _ends_function(chain: Chain) -> bool:
    """Whether it may belong to a GELU or a layer normalization in parts, for which runtimes have a kernel of their own.

    These end with a product of tensors, scaled by a constant.
    """
    node = chain.source.producer()
    return node is not None and node.op_type in ("Mul", "Div") and chain.nodes[-1].op_type != "BatchNormalization"


def _spans_channels(chain: Chain, readers: list[Linear]) -> bool:
    """Whether the source has as many channels as the readers want; one may have been broadcast."""
    axis, channels = readers[0].channel_axis, _input_channels(readers[0])
    if chain.factor.size == chain.shift.size == 1:
        return True
    shape = chain.source.shape
    return shape is not None and len(shape) >= -axis and shape[axis] == channels


def _input_channels(linear: Linear) -> int:
    if linear.node.op_type == "Conv":
        return linear.weight.shape[1] * integer(linear.node, "group", 1)
    return linear.weight.shape[0]


def _pads(linear: Linear) -> bool:
    return any(ints(linear.node, "pads") or []) or "auto_pad" in linear.node.attributes


def _add(builder: Builder, chain: Chain, axis: int) -> ir.Value:
    """The source plus what has to be added to it for `factor` to do the rest."""
    last = chain.nodes[0]
    shift = np.broadcast_to(chain.shift / chain.factor, np.broadcast_shapes(chain.shift.shape, chain.factor.shape))
    constant = shift.reshape((-1, *[1] * (-axis - 1)) if shift.size > 1 else ()).astype(np.float32)
    name = builder.unique(f"{(last.name or '').rsplit('/', 1)[0]}/Add")
    add = ir.node("Add", [chain.source, builder.constant(constant)], outputs=[ir.Value(name=name)], name=name)
    builder.graph.insert_before(last, add)
    add.outputs[0].shape, add.outputs[0].type = chain.source.shape, chain.source.type
    return add.outputs[0]


def _scale_inputs(builder: Builder, linear: Linear, factor: np.ndarray, shift: np.ndarray) -> None:
    """Let the operator compute of x what it computed of x * factor + shift."""
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
    """One number an input channel, laid out to be multiplied with the weight."""
    if linear.node.op_type != "Conv":
        return channels[:, None]
    groups = channels.reshape(integer(linear.node, "group", 1), -1)
    rows = np.repeat(groups, linear.channels // len(groups), axis=0)
    return rows.reshape(*rows.shape, *[1] * (linear.weight.ndim - 2))
