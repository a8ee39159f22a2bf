"""Fusion: which normalization, activation, dropout and residual sum belongs to which product.

A product is a layer that multiplies its input by its own weights: a convolution, Dense, EinsumDense, attention with
projections. One kernel can compute a product and the calls after it:

    product [> dropout] > BatchNormalization      folded: its constants become part of the product's weights and bias
    product [> BatchNormalization] > x * 0.17     folded in the same way
    product [> BatchNormalization] > activation   fused: the kernel activates before it writes
    product [> ...] > Add                         fused: the kernel adds the other operand before it writes

In such a chain, only the next call reads the output of a call, and the model does not return it.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from tensorflow_quantization.model.activations import (
    Activation,
    activation_of,
    is_activation,
    last_activation,
    own_activation,
)
from tensorflow_quantization.model.equation import Equation
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, is_one_of, origin, traits


@dataclass(frozen=True)
class KernelFusion:
    """The calls that a runtime fuses into its kernels.

    Attributes:
        activations: the activations that a kernel can fuse; default none.
        without_activation: names of classes whose kernels fuse no activation; default none.
        scalings: bool; a chain of layers that scale channels is one kernel. Default `False`.
        separates_axes: bool; an EinsumDense that makes several axes ends with a reshape, and fuses no activation.
            Default `False`.
    """

    activations: frozenset[Activation] = frozenset()
    without_activation: frozenset[str] = frozenset()
    scalings: bool = False
    separates_axes: bool = False


def folded_into(graph: LayerGraph, call: Call) -> Call | None:
    """Returns the product into which `call`, a BatchNormalization or a factor, is folded; `None` for any other call.

    Only folded calls and dropout may lie between the two. The product must not activate its output, and its output
    channels must be the normalized axis.
    """
    if not _is_foldable(call):
        return None
    normalizes = Trait.NORMALIZES in traits(call)
    tensor = call.inputs[0]
    source = _private_source(graph, tensor)
    while source is not None and is_identity(source):
        source = _private_source(graph, source.inputs[0])
    if source is None or (normalizes and channel_axis(source) != call.operation.axis % len(tensor.shape)):
        return None
    if _is_foldable(source):
        return folded_into(graph, source)
    is_product = Trait.MULTIPLIES_BY_WEIGHTS in traits(source)
    return source if is_product and own_activation(source.operation) is Activation.LINEAR else None


def folded_normalizations(graph: LayerGraph, product: Call) -> list[Call]:
    """Returns the normalizations and factors that are folded into `product`, in topological order."""
    found, call = [], _only_reader(graph, product)
    while call is not None and (is_identity(call) or folded_into(graph, call) is product):
        found += [] if is_identity(call) else [call]
        call = _only_reader(graph, call)
    return found


def fused_convolution(graph: LayerGraph, tensor: Tensor) -> Call | None:
    """Returns the convolution whose kernel writes `tensor`; `None` if there is none.

    The tensor is the output of the convolution, of folded normalizations and factors after it, of an activation after
    these, or of dropout at any place.
    """
    source = tensor.producer
    while source is not None and is_identity(source):
        source = _private_source(graph, source.inputs[0])
    if source is not None and is_activation(source):
        source = _private_source(graph, source.inputs[0])
        while source is not None and is_identity(source):
            source = _private_source(graph, source.inputs[0])
    if source is not None and _is_foldable(source):
        source = folded_into(graph, source)
    return source if source is not None and Trait.CONVOLVES in traits(source) else None


def fused_sum_operand(graph: LayerGraph, call: Call) -> Tensor | None:
    """Returns the input of an Add whose convolution fuses the sum; `None` if there is none, or `call` is no Add.

    If several inputs qualify, an input without an activation after its convolution comes first, since a kernel adds
    before it activates; then one that is only clipped; among these, the last one is returned.
    """
    if Trait.ADDS not in traits(call):
        return None
    found = [x for x in call.inputs if graph.only_reader(x) is call and fused_convolution(graph, x) is not None]
    linear = [tensor for tensor in found if last_activation(origin(tensor)) is Activation.LINEAR]
    clipped = [tensor for tensor in found if last_activation(origin(tensor)).clips]
    return next(reversed(linear or clipped or found), None)


def unrounded_sum_operand(graph: LayerGraph, call: Call) -> Tensor | None:
    """Returns `fused_sum_operand` if its convolution adds before it rounds: nothing but a clip activates it."""
    tensor = fused_sum_operand(graph, call)
    if tensor is None:
        return None
    activation = last_activation(origin(tensor))
    return tensor if activation is Activation.LINEAR or activation.clips else None


def fused_calls(graph: LayerGraph, call: Call, fusion: KernelFusion) -> list[Call]:
    """Returns the calls after `call` that its kernel fuses: normalizations, factors, dropout, then an activation."""
    fused: list[Call] = []
    operation = call.operation
    activated = own_activation(operation) is not Activation.LINEAR or activation_of(operation) is not None
    reshapes = fusion.separates_axes and is_one_of(call, ("EinsumDense",)) and channel_axis(call) is None
    activated = activated or reshapes or is_one_of(call, fusion.without_activation)
    scales = fusion.scalings and Trait.SCALES_CHANNELS in traits(call)
    reader = _only_reader(graph, call)
    while reader is not None:
        scales = scales and Trait.SCALES_CHANNELS in traits(reader)
        if not (scales or is_identity(reader) or folded_into(graph, reader) is call):
            if activated or activation_of(reader.operation) not in fusion.activations:
                break
            activated = True
        fused.append(reader)
        reader = _only_reader(graph, reader)
    return fused


def fusing_call(graph: LayerGraph, call: Call, fusion: KernelFusion, has_kernel: Callable[[Call], bool]) -> Call | None:
    """Returns the call whose kernel fuses `call`; the earliest if several could; `None` if no kernel fuses it.

    Args:
        graph: the graph of `call`.
        call: the call to look for.
        fusion: the fusions of the runtime.
        has_kernel: returns whether the runtime has a kernel that starts with a call.
    """
    found = None
    source = call.inputs[0].producer if call.inputs else None
    while source is not None:
        if has_kernel(source) and any(call is fused for fused in fused_calls(graph, source, fusion)):
            found = source
        passes = is_identity(source) or bool(traits(source) & (Trait.NORMALIZES | Trait.SCALES_CHANNELS))
        passes = passes or activation_of(source.operation) in fusion.activations
        source = source.inputs[0].producer if passes else None
    return found


def computing_readers(graph: LayerGraph, tensor: Tensor) -> Iterator[Call]:
    """Yields the calls that compute with `tensor`, directly or after it is moved, normalized or clipped."""
    for reader in graph.consumers(tensor):
        activation = activation_of(reader.operation)
        if traits(reader) & (Trait.MOVES_DATA | Trait.NORMALIZES) or (activation is not None and activation.clips):
            for output in reader.outputs:
                yield from computing_readers(graph, output)
        else:
            yield reader


def is_identity(call: Call) -> bool:
    """Returns whether a call returns its input at inference."""
    return Trait.IS_IDENTITY in traits(call) or activation_of(call.operation) is Activation.LINEAR


def _is_foldable(call: Call) -> bool:
    return Trait.NORMALIZES in traits(call) or _is_factor(call)


def _is_factor(call: Call) -> bool:
    """Whether a call multiplies its only input by a number, as in `inputs * 0.17`."""
    others = [arg for arg in call.args if not isinstance(arg, Tensor)]
    if not is_one_of(call, ("Multiply",)) or len(call.inputs) != 1 or len(others) != 1:
        return False
    (factor,) = others
    return isinstance(factor, numbers.Real) or (isinstance(factor, np.ndarray) and factor.ndim == 0)


def channel_axis(call: Call) -> int | None:
    """Returns the axis of the output channels of a product or normalization; `None` if there is not exactly one."""
    layer, rank = call.operation, len(call.outputs[0].shape)
    kind = traits(call)
    if Trait.NORMALIZES in kind:
        return layer.axis % rank
    if Trait.MULTIPLIES_BY_WEIGHTS not in kind:
        return None
    if Trait.CONVOLVES in kind:
        return 1 if layer.data_format == "channels_first" else rank - 1
    if Trait.PROJECTS in kind:  # a projection can have several output axes
        return rank - 1 if rank == len(call.inputs[0].shape) else None
    if isinstance(layer, keras.layers.EinsumDense):
        return Equation.parse(layer.equation, len(call.inputs[0].shape)).channel_axis
    return rank - 1


def _private_source(graph: LayerGraph, tensor: Tensor) -> Call | None:
    """Returns the producer of `tensor` if only one call reads it and the model does not return it; else `None`."""
    return tensor.producer if graph.only_reader(tensor) is not None else None


def _only_reader(graph: LayerGraph, call: Call) -> Call | None:
    return graph.only_reader(call.outputs[0])
